// Two users in two windows of a browser, each on a server of its own: browser.mjs ONE TWO PROCESS-OF-TWO FOLDER. Exits with 1
// if something is not as it should be.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [one, two, processOfTwo, folder] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM;

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

const faults = [];

// A window of its own, with nothing in common with others.
async function signIn(name, server) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 720 } });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => faults.push(`${name}: ${error}`));
  await page.goto(`http://${server}/`);
  await page.fill("#name", name);
  await page.click("#door button");
  await page.waitForSelector('#state[data-up="true"]');
  return page;
}

const say = async (page, text) => {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
};
const texts = (page) => page.$$eval("#messages li:not(.news) span", (items) => items.map((item) => item.textContent));
const reads = (page, expected) =>
  page.waitForFunction(
    (wanted) => {
      const items = [...document.querySelectorAll("#messages li:not(.news)")];
      return !items.some((item) => item.classList.contains("pending")) && items.length >= wanted;
    },
    expected,
  );
const picture = (page, name) => page.screenshot({ path: `${folder}/${name}.png` });

try {
  const anna = await signIn("anna", one);
  const bert = await signIn("bert", two);
  await picture(anna, "1-signed-in");

  // A conversation, from one side.
  await anna.fill("#with", "bert");
  await anna.press("#with", "Enter");
  await anna.waitForSelector("#heading >> text=bert");
  await say(anna, "Hello Bert, this is Anna.");
  await bert.click("#conversations button >> text=anna");
  await reads(bert, 1);
  await say(bert, "Hello Anna! I am on the other server.");
  await reads(anna, 2);

  // A double click on the button is one message, and a second tab repeats nothing.
  await anna.fill("#text", "Once, though I clicked twice.");
  await anna.dblclick("#send button");
  await reads(bert, 3);
  const tab = await anna.context().newPage();
  tab.on("pageerror", (error) => faults.push(`tab: ${error}`));
  await tab.goto(`http://${one}/`);
  await tab.fill("#name", "anna");
  await tab.click("#door button");
  await tab.click("#conversations button >> text=bert");
  await reads(tab, 3);
  await say(tab, "From a second tab.");
  for (const page of [anna, bert, tab]) await reads(page, 4);
  await picture(anna, "2-talking");
  await picture(bert, "3-the-other-side");

  // A group, and one only, though the button was clicked twice.
  await anna.fill("#title", "Weekend");
  await anna.dblclick("#group button");
  await anna.waitForSelector("#heading >> text=Weekend");
  await anna.fill("#who", "bert");
  await anna.click('#change button[name="add"]');
  await anna.waitForSelector("#messages li.news >> text=anna added bert");
  await say(anna, "Who brings the cake?");
  await bert.click("#conversations button >> text=Weekend");
  await reads(bert, 1);
  await picture(bert, "4-group");
  await tab.waitForSelector("#conversations button >> text=Weekend");
  assert.equal(await tab.locator("#conversations button >> text=Weekend").count(), 1);

  // Bert's server dies: he goes on at the other one, with what he wrote meanwhile.
  process.kill(Number(processOfTwo), "SIGKILL");
  await say(bert, "My server has just died.");
  await say(anna, "Mine has not.");
  await bert.waitForFunction((server) => document.querySelector("#state").textContent === server
    && document.querySelector("#state").dataset.up === "true", one);
  for (const page of [anna, bert]) await reads(page, 3);
  assert.deepEqual(await texts(anna), await texts(bert));
  assert.equal(new Set(await texts(bert)).size, 3);
  await picture(bert, "5-at-the-other-server");

  await bert.click("#conversations button >> text=anna");
  const expected = ["Hello Bert, this is Anna.", "Hello Anna! I am on the other server.",
    "Once, though I clicked twice.", "From a second tab."];
  assert.deepEqual(await texts(bert), expected);

  // After a reload everything is there, once.
  await bert.goto(`http://${one}/`);
  await bert.fill("#name", "bert");
  await bert.click("#door button");
  await bert.click("#conversations button >> text=anna");
  await reads(bert, 4);
  assert.deepEqual(await texts(bert), expected);

  // On a telephone.
  await bert.setViewportSize({ width: 390, height: 780 });
  await picture(bert, "6-telephone");
  assert.deepEqual(faults, []);
  console.log("all is well");
} finally {
  await browser.close();
}
