import { Connection } from "/connection.js";

const at = (id) => document.getElementById(id);

// Who this is: of this tab, so that two tabs can be two users.
let me = JSON.parse(sessionStorage.getItem("chat-me"));
let connection = null;

// By id: { id, title, members, messages: [], seen, unread }.
const conversations = new Map();
let current = null;

// `crypto.randomUUID` would want https where this page is not on the same machine.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// What was written and not answered yet, kept over a reload, and shared by the tabs of a user: each tab sends all of it,
// which does no harm, since each message keeps its id. Each has a key of its own, so that tabs do not overwrite each other's.
const outbox = {
  added: 0,
  keys() {
    const isOwn = (key) => key.startsWith(`chat-outbox/${me.name}/`);
    return Object.keys(localStorage).filter(isOwn).sort();
  },
  all() {
    const texts = this.keys().map((key) => localStorage.getItem(key));
    return texts.filter((text) => text !== null).map((text) => JSON.parse(text));
  },
  add(message) {
    const place = `${Date.now()}-${String(this.added++).padStart(9, "0")}`;
    localStorage.setItem(`chat-outbox/${me.name}/${place}/${message.messageId}`, JSON.stringify(message));
  },
  remove(messageId) {
    for (const key of this.keys()) if (key.endsWith(`/${messageId}`)) localStorage.removeItem(key);
  },
};

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function paint(face, name) {
  face.textContent = name[0] ?? "?";
  let hue = 0;
  for (const letter of name) hue = (hue * 31 + letter.charCodeAt(0)) % 360;
  face.style.setProperty("--hue", hue);
}

function nameOf({ title, members }) {
  return title ?? members.find((member) => member !== me.name) ?? "…";
}

function conversationOf(id) {
  if (!conversations.has(id)) {
    conversations.set(id, { id, title: null, members: [], messages: [], unread: 0 });
    refresh();
  }
  return conversations.get(id);
}

async function refresh() {
  try {
    const answer = await connection.ask("conversations", {});
    for (const { conversation, title, members } of answer.conversations) {
      const known = conversations.get(conversation) ?? { id: conversation, messages: [], unread: 0 };
      conversations.set(conversation, Object.assign(known, { title, members }));
    }
    const { contacts } = await connection.ask("contacts", {});
    at("contacts").replaceChildren(...contacts.map((contact) => element("option", { value: contact })));
    draw();
  } catch {
    // It is asked for again when the connection is back.
  }
}

function show(message) {
  const conversation = conversationOf(message.conversation);
  conversation.messages.push(message);
  if (message.sender === me.name) outbox.remove(message.messageId);
  if (message.conversation !== current && message.sender !== me.name) conversation.unread += 1;
  if (message.kind !== "text") refresh();
  draw();
}

function textOf({ kind, sender, said }) {
  if (kind === "added") return `${sender} added ${said}`;
  if (kind === "removed") return said === sender ? `${sender} left` : `${sender} removed ${said}`;
  if (kind === "made") return `${sender} made the group`;
  return said;
}

function draw() {
  const time = ({ messages }) => messages.at(-1)?.sentAtMs ?? 0;
  const all = [...conversations.values()].sort((one, other) => time(other) - time(one));
  at("conversations").replaceChildren(
    ...all.map((conversation) => {
      const face = element("span", { className: "face" });
      paint(face, nameOf(conversation));
      const last = conversation.messages.at(-1);
      const text = element("span", {},
        element("strong", { textContent: nameOf(conversation) }),
        element("small", { textContent: last ? textOf(last) : "nothing yet" }));
      const button = element("button", { type: "button", onclick: () => open(conversation.id) }, face, text);
      if (conversation.unread) button.append(element("span", { className: "unread", textContent: conversation.unread }));
      if (conversation.id === current) button.setAttribute("aria-current", "true");
      return button;
    }),
  );
  const conversation = conversations.get(current);
  for (const id of ["head", "messages", "send"]) at(id).hidden = !conversation;
  at("nothing").hidden = Boolean(conversation);
  if (!conversation) return;
  paint(at("face"), nameOf(conversation));
  at("heading").textContent = nameOf(conversation);
  at("members").textContent = conversation.title ? conversation.members.join(", ") : "";
  at("change").hidden = !conversation.title;
  const pending = outbox.all().filter((message) => message.conversation === current);
  const there = new Set(conversation.messages.filter(({ sender }) => sender === me.name).map(({ messageId }) => messageId));
  const items = [
    ...conversation.messages.map((message) => item(message, conversation.title)),
    ...pending.filter(({ messageId }) => !there.has(messageId)).map(({ text }) =>
      element("li", { className: "mine pending", textContent: text }, element("small", { textContent: "sending…" }))),
  ];
  at("messages").replaceChildren(...items);
  at("messages").scrollTop = at("messages").scrollHeight;
}

function item(message, isGroup) {
  if (message.kind !== "text") return element("li", { className: "news", textContent: textOf(message) });
  const isMine = message.sender === me.name;
  const time = new Date(message.sentAtMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const shown = element("li", { className: isMine ? "mine" : "theirs" });
  if (isGroup && !isMine) shown.append(element("small", { className: "by", textContent: message.sender }));
  shown.append(element("span", { textContent: message.said }), element("small", { textContent: time }));
  shown.dataset.number = message.number;
  return shown;
}

function open(id) {
  current = id;
  conversationOf(id).unread = 0;
  draw();
  at("text").focus();
}

// Sends what is waiting, in its order. Each message goes again until it is answered.
let isSending = false;
async function flush() {
  if (isSending) return;
  isSending = true;
  for (let next; (next = outbox.all()[0]); ) {
    try {
      await connection.ask("send", next);
      outbox.remove(next.messageId);
    } catch (error) {
      if (!error.refused) break;
      outbox.remove(next.messageId);
      complain(error);
      draw();
    }
  }
  isSending = false;
}

function complain(error) {
  at("error").textContent = error?.message ?? "";
}

// What is asked of the server when a form is sent.
function onSubmit(id, act) {
  at(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await act(event);
      complain(null);
    } catch (error) {
      complain(error);
    }
  });
}

// The same as long as a form says the same and was not answered: a double click, or a second try after an error, asks for
// nothing twice.
const asked = new Map();
async function askOnce(event, data) {
  const form = JSON.stringify([event, data]);
  if (!asked.has(form)) asked.set(form, newId());
  const messageId = asked.get(form);
  try {
    const answer = await connection.ask(event, { messageId, ...data });
    asked.delete(form);
    return answer;
  } catch (error) {
    if (error.refused) asked.delete(form);
    throw error;
  }
}

onSubmit("open", async () => {
  const { conversation } = await connection.ask("open", { with: at("with").value });
  at("with").value = "";
  await refresh();
  open(conversation);
});

onSubmit("group", async () => {
  const { conversation } = await askOnce("group", { title: at("title").value, members: [] });
  at("title").value = "";
  await refresh();
  open(conversation);
});

onSubmit("change", async ({ submitter }) => {
  await askOnce(submitter.name, { conversation: current, name: at("who").value });
  at("who").value = "";
});

onSubmit("send", async () => {
  const text = at("text").value;
  if (!text) return;
  outbox.add({ messageId: newId(), conversation: current, text });
  at("text").value = "";
  draw();
  await flush();
});

at("leave").addEventListener("click", () => {
  sessionStorage.removeItem("chat-me");
  location.reload();
});

at("door").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/sign-in", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name: at("name").value }),
  });
  if (!answer.ok) {
    at("door-error").textContent = await answer.text();
    return;
  }
  me = await answer.json();
  sessionStorage.setItem("chat-me", JSON.stringify(me));
  enter();
});

async function enter() {
  at("door").hidden = true;
  at("chat").hidden = false;
  at("me").textContent = me.name;
  paint(at("me-face"), me.name);
  const others = await (await fetch("/api/servers")).json();
  connection = new Connection({
    servers: [location.origin, ...others.filter((server) => server !== location.origin)],
    auth: () => ({
      token: me.token,
      after: Object.fromEntries([...conversations].map(([id, { messages }]) => [id, messages.at(-1)?.number ?? 0])),
    }),
    show,
    tell(server, isUp, reason) {
      at("state").textContent = isUp ? server.replace(/^https?:\/\//, "") : (reason ?? "looking for a server…");
      at("state").dataset.up = isUp;
      if (reason) sessionStorage.removeItem("chat-me");
      if (!isUp) return;
      refresh();
      flush();
    },
  });
  // What the server could not take is sent again, as long as the page is open.
  setInterval(flush, 2_000);
}

if (me) enter();
