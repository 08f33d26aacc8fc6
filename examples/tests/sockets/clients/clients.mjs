// Clients of Socket.IO, told by lines of JSON on standard input what to do. Each is what a browser has: the ordinary
// socket.io-client, which repeats what was not answered, and goes to the next server when one is away.

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const clients = new Map();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const orders = {
  // Connects to the first of the servers that takes it. `after` is where it was: a number, or numbers by conversation.
  connect({ client, servers, auth, after, event, retries }) {
    let seen = after ?? 0;
    let next = 0;
    const socket = io(servers[0], {
      forceNew: true,
      transports: ["websocket"],
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      retries,
      ackTimeout: retries ? 5_000 : 30_000,
      auth: (give) => give({ ...auth, after: seen }),
    });
    clients.set(client, socket);
    socket.io.on("reconnect_attempt", () => {
      next = (next + 1) % servers.length;
      socket.io.uri = servers[next];
    });
    socket.on("connect", () => say({ client, connected: true }));
    socket.on("connect_error", (error) => say({ client, refused: error.message }));
    socket.on("disconnect", (reason) => {
      // A server that ends says so; socket.io-client then leaves it to us to come back.
      if (reason === "io server disconnect") socket.connect();
    });
    socket.on(event, (data, confirm) => {
      if (data.conversation === undefined) seen = data.number;
      else seen = { ...seen, [data.conversation]: data.number };
      say({ client, received: data });
      confirm();
    });
  },
  ask({ client, number, event, data }) {
    clients.get(client).emit(event, data, (...answer) => {
      const [error, value] = answer;
      say({ client, number, answer: error ? { lost: String(error) } : value });
    });
  },
  close({ client }) {
    clients.get(client).disconnect();
    clients.delete(client);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { order, ...rest } = JSON.parse(line);
  orders[order](rest);
}
process.exit(0);
