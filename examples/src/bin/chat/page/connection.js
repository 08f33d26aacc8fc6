// A connection to whichever server is there: the part of Socket.IO that this page needs, over WebSocket. An application of
// yours uses `socket.io-client`, as this example's tests do.

const PATIENCE = 12_000;

export class Connection {
  #servers;
  #auth;
  #show;
  #tell;
  #socket = null;
  #isUp = false;
  #next = 0;
  #tries = 0;
  #last = 0;
  #asked = new Map();
  #isClosed = false;

  // `auth()` says who this is and what was seen; `show(message)` is called for each message; `tell(server, isUp, reason)`
  // when the connection comes or goes.
  constructor({ servers, auth, show, tell }) {
    this.#servers = servers;
    this.#auth = auth;
    this.#show = show;
    this.#tell = tell;
    this.#connect();
  }

  // Asks the server something. Rejects if there is no answer in time, or the connection is lost before.
  ask(event, data) {
    if (!this.#isUp) return Promise.reject(new Error("not connected"));
    const number = this.#last++;
    this.#socket.send(`42${number}${JSON.stringify([event, data])}`);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#answer(number, null, "no answer"), PATIENCE);
      this.#asked.set(number, { resolve, reject, timer });
    });
  }

  close() {
    this.#isClosed = true;
    this.#socket.close();
  }

  #connect() {
    const server = this.#servers[this.#next];
    const socket = new WebSocket(`${server.replace(/^http/, "ws")}/socket.io/?EIO=4&transport=websocket`);
    this.#socket = socket;
    // A server that hangs is as good as one that is away.
    let silence = setTimeout(() => socket.close(), PATIENCE);
    socket.onmessage = ({ data }) => {
      clearTimeout(silence);
      silence = setTimeout(() => socket.close(), 60_000);
      this.#read(data, server);
    };
    socket.onclose = () => {
      clearTimeout(silence);
      this.#lose(server);
    };
  }

  #read(data, server) {
    const kind = data.slice(0, data.startsWith("4") ? 2 : 1);
    const rest = data.slice(kind.length);
    const array = rest.indexOf("[");
    if (kind === "0") this.#socket.send(`40${JSON.stringify(this.#auth())}`);
    else if (kind === "2") this.#socket.send("3");
    else if (kind === "40") {
      this.#isUp = true;
      this.#tries = 0;
      this.#tell(server, true);
    } else if (kind === "44") {
      this.#isClosed = true;
      this.#tell(server, false, JSON.parse(rest).message);
      this.#socket.close();
    } else if (kind === "42") {
      const [event, value] = JSON.parse(rest.slice(array));
      if (event === "message") this.#show(value);
      if (array > 0) this.#socket.send(`43${rest.slice(0, array)}[]`);
    } else if (kind === "43") {
      this.#answer(Number(rest.slice(0, array)), JSON.parse(rest.slice(array))[0]);
    }
  }

  #answer(number, value, reason) {
    const asked = this.#asked.get(number);
    if (!asked) return;
    this.#asked.delete(number);
    clearTimeout(asked.timer);
    if (reason) asked.reject(new Error(reason));
    else if (value.success) asked.resolve(value);
    else asked.reject(Object.assign(new Error(value.error), { refused: !value.error.startsWith("try again") }));
  }

  // Goes to the next server.
  #lose(server) {
    this.#isUp = false;
    for (const number of [...this.#asked.keys()]) this.#answer(number, null, "the connection was lost");
    if (this.#isClosed) return;
    this.#tell(server, false);
    this.#next = (this.#next + 1) % this.#servers.length;
    this.#tries += 1;
    setTimeout(() => this.#connect(), Math.min(100 * 2 ** this.#tries, 3_000));
  }
}
