// One connection to a socket server, from the handshake to the close: hello and welcome, heartbeats, timeouts. It reports how
// it ended; `connection-keeper.js` decides what follows.

import { decode } from "./frames.js";
import { SILENT_INTERVALS, STABLE_SECONDS, SUBPROTOCOL, subprotocols } from "./reconnect-rules.js";

/** @typedef {import("./browser.js").Timers} Timers */
/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */

/** A server counts as unreachable if the socket does not open, or no welcome arrives, within so many seconds. */
export const OPEN_SECONDS = 10;
/** After the network changed or the laptop slept, a heartbeat must be answered within so many seconds. */
export const PROBE_SECONDS = 4;

const HEARTBEAT = '{"type":"heartbeat","data":{}}';

/**
 * Receives what happens on a connection. Nothing is called after `close()`.
 * @typedef {object} Listener
 * @property {() => string} token the token that the hello will contain
 * @property {() => Record<string, unknown>} hello the data of the hello; the socket has opened
 * @property {(welcome: Record<string, any>) => void} welcomed
 * @property {(message: Message) => void} message every frame but welcome and heartbeats, also before the welcome
 * @property {(elements: number) => void} malformed how many elements of a frame were malformed
 * @property {() => void} heard a frame was handled
 * @property {(happened: Happened, why: string | null) => void} ended called once, as the last
 */

/** A WebSocket with its hello, heartbeats and timeouts. */
export class Connection {
  /** Whether a welcome has come. */
  welcomed = false;

  /** @type {Timers} */ #timers;
  /** @type {() => number} */ #now;
  /** @type {Listener} */ #listener;
  /** @type {WebSocket | null} */ #ws = null;
  #heard = 0;
  #heardAt = 0;
  #beatDue = 0;
  #beatSeconds = 0;
  #welcomedAt = 0;

  /**
   * @param {string} url
   * @param {{timers: Timers, now: () => number}} clock `timers`: used by this connection only; `now` in ms since the epoch
   * @param {Listener} listener
   */
  constructor(url, { timers, now }, listener) {
    this.url = url;
    this.#timers = timers;
    this.#now = now;
    this.#listener = listener;
  }

  /**
   * Open the socket. Throws what the constructor of `WebSocket` throws: the address is not valid, or the page may not use it.
   * @param {typeof WebSocket} WebSocket
   */
  open(WebSocket) {
    const ws = new WebSocket(this.url, subprotocols(this.#listener.token()));
    this.#ws = ws;
    this.#limitOpening();
    ws.onopen = () => this.#greet(ws);
    ws.onmessage = (event) => this.#received(ws, event.data);
    // A refused handshake: browsers fire a close event as well, other implementations only this one.
    ws.onerror = () => this.#closed(1006, "");
    ws.onclose = (event) => this.#closed(event.code, event.reason);
  }

  /** @param {string} type @param {Record<string, unknown>} data */
  send(type, data) {
    this.#ws?.send(JSON.stringify({ type, data }));
  }

  /** Close the socket and stop all timers. @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = "") {
    const ws = this.#ws;
    this.#ws = null;
    this.#timers.stopAll();
    if (ws === null) return;
    ws.onopen = ws.onmessage = ws.onerror = ws.onclose = null;
    if (ws.readyState <= 1) ws.close(code, reason);
  }

  /** Seconds since the welcome. */
  lasted() {
    const seconds = (this.#now() - this.#welcomedAt) / 1000;
    return seconds < 0 ? STABLE_SECONDS : seconds; // the clock was set back: count it as stable
  }

  /** Check that the server is still there: send a heartbeat, and drop the connection without an answer in `PROBE_SECONDS`. */
  probe() {
    if (!this.welcomed || this.#ws === null || this.#timers.runs("probe")) return;
    if (this.#ws.readyState !== 1) {
      this.#drop(); // closing or closed: the close event is still to come
      return;
    }
    const heard = this.#heard;
    this.#ws.send(HEARTBEAT);
    this.#timers.start("probe", PROBE_SECONDS, () => {
      if (this.#heard === heard) this.#drop();
    });
  }

  #limitOpening() {
    this.#timers.start("open", OPEN_SECONDS, () => this.#end({ kind: "unreachable" }, null));
  }

  /** @param {WebSocket} ws */
  #greet(ws) {
    ws.onerror = null; // from now on the close event reports the end
    if (ws.protocol !== SUBPROTOCOL) {
      this.#end({ kind: "unreachable" }, `${ws.url} is not a socket server: it does not speak ${SUBPROTOCOL}`);
      return;
    }
    this.#limitOpening();
    this.send("hello", this.#listener.hello());
  }

  /** @param {WebSocket} ws @param {unknown} text */
  #received(ws, text) {
    this.#heard += 1;
    this.#heardAt = this.#now();
    const { messages, malformed } = decode(text);
    if (malformed) this.#listener.malformed(malformed);
    for (const message of messages) {
      if (this.#ws !== ws) return; // a listener closed the client
      this.#handle(message);
    }
    if (this.#ws === ws) this.#listener.heard();
  }

  /** @param {Message} message */
  #handle(message) {
    if (!this.welcomed && message.type === "welcome") {
      this.welcomed = true;
      this.#welcomedAt = this.#now();
      this.#beatSeconds = message.data.heartbeatSeconds;
      this.#timers.stop("open");
      this.#scheduleBeat();
      this.#listener.welcomed(message.data);
    } else if (message.type !== "heartbeat") this.#listener.message(message);
  }

  #scheduleBeat() {
    this.#beatDue = this.#now() + this.#beatSeconds * 1000;
    this.#timers.start("beat", this.#beatSeconds, () => this.#beat());
  }

  #beat() {
    const interval = this.#beatSeconds * 1000;
    const now = this.#now();
    const late = now - this.#beatDue;
    this.#scheduleBeat();
    if (now < this.#heardAt) this.#heardAt = now; // the clock was set back
    if (late > interval) {
      // The laptop slept, or the browser slowed down a hidden page: silence proves nothing, so probe.
      this.probe();
    } else if (now - this.#heardAt > SILENT_INTERVALS * interval) {
      this.#drop();
    } else {
      this.#ws?.send(HEARTBEAT);
    }
  }

  /** Count the connection as lost at once: the close handshake with a dead server would take a minute. */
  #drop() {
    this.#end({ kind: "lost", code: null, lasted: this.lasted() }, null, 4000, "PING_TIMEOUT");
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    const sentCode = code === 1006 ? null : code; // 1006: the connection broke, no code was sent
    if (this.welcomed) this.#end({ kind: "lost", code: sentCode, lasted: this.lasted() }, null);
    else if (sentCode === null) this.#end({ kind: "unreachable" }, null);
    else this.#end({ kind: "lost", code: sentCode, lasted: 0 }, reason || null);
  }

  /** @param {Happened} happened @param {string | null} why @param {number} [code] @param {string} [reason] */
  #end(happened, why, code, reason) {
    this.close(code, reason);
    this.#listener.ended(happened, why);
  }
}
