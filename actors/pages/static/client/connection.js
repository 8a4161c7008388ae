// One connection to a socket server, from the handshake to its end: hello and welcome, heartbeats, silence. It says what
// happened; what to do about it is the client's.

import { decode } from "./frames.js";
import { SILENT_INTERVALS, STABLE_SECONDS, SUBPROTOCOL, subprotocols } from "./reconnect-rules.js";

/** @typedef {import("./browser.js").Timers} Timers */
/** @typedef {import("./plan-view.js").Message} Message */
/** @typedef {import("./reconnect-rules.js").Happened} Happened */

/** A socket that does not open, and one that opens and sends no welcome, count as unreachable after so long. */
export const OPEN_SECONDS = 10;
/** A connection in doubt (the network changed, the laptop slept) has so long to answer a heartbeat. */
export const PROBE_SECONDS = 4;

const HEARTBEAT = '{"type":"heartbeat","data":{}}';

/**
 * Who is told. None of it after `close()`.
 * @typedef {object} Listener
 * @property {() => string} token what the hello will hold
 * @property {() => Record<string, unknown>} hello the data of the hello; the socket has opened
 * @property {(welcome: Record<string, any>) => void} welcomed
 * @property {(message: Message) => void} message every other frame but heartbeats; before the welcome, too
 * @property {(elements: number) => void} malformed so many elements of a frame were no message to use
 * @property {() => void} heard a frame was dealt with
 * @property {(happened: Happened, why: string | null) => void} ended once; nothing follows
 */

export class Line {
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
   * @param {{timers: Timers, now: () => number}} clock `timers` are this line's alone; `now` in ms since the epoch
   * @param {Listener} listener
   */
  constructor(url, { timers, now }, listener) {
    this.url = url;
    this.#timers = timers;
    this.#now = now;
    this.#listener = listener;
  }

  /**
   * Begin. Throws what the constructor throws: for an address that is none, or one that the page may not use.
   * @param {typeof WebSocket} WebSocket
   */
  open(WebSocket) {
    const ws = new WebSocket(this.url, subprotocols(this.#listener.token()));
    this.#ws = ws;
    this.#limit();
    ws.onopen = () => this.#greet(ws);
    ws.onmessage = (event) => this.#received(ws, event.data);
    // A refused handshake: browsers tell of it by a close event as well, other implementations by this alone.
    ws.onerror = () => this.#closed(1006, "");
    ws.onclose = (event) => this.#closed(event.code, event.reason);
  }

  /** @param {string} type @param {Record<string, unknown>} data */
  send(type, data) {
    this.#ws?.send(JSON.stringify({ type, data }));
  }

  /** Let go of the socket and of everything that waits for it. @param {number} [code] @param {string} [reason] */
  close(code = 1000, reason = "") {
    const ws = this.#ws;
    this.#ws = null;
    this.#timers.stopAll();
    if (ws === null) return;
    ws.onopen = ws.onmessage = ws.onerror = ws.onclose = null;
    if (ws.readyState <= 1) ws.close(code, reason);
  }

  /** How long ago the welcome came, in seconds. */
  lasted() {
    const seconds = (this.#now() - this.#welcomedAt) / 1000;
    return seconds < 0 ? STABLE_SECONDS : seconds; // the clock was set back: nothing speaks against the connection
  }

  /** Whether the server is still there: one heartbeat, and an answer within `PROBE_SECONDS`. */
  probe() {
    if (!this.welcomed || this.#ws === null || this.#timers.runs("probe")) return;
    if (this.#ws.readyState !== 1) {
      this.#drop(); // closing or closed: the browser has not told us yet
      return;
    }
    const heard = this.#heard;
    this.#ws.send(HEARTBEAT);
    this.#timers.start("probe", PROBE_SECONDS, () => {
      if (this.#heard === heard) this.#drop();
    });
  }

  #limit() {
    this.#timers.start("open", OPEN_SECONDS, () => this.#end({ kind: "unreachable" }, null));
  }

  /** @param {WebSocket} ws */
  #greet(ws) {
    ws.onerror = null; // from now on a close event tells how it ended
    if (ws.protocol !== SUBPROTOCOL) {
      this.#end({ kind: "unreachable" }, `${ws.url} is no socket server: it does not speak ${SUBPROTOCOL}`);
      return;
    }
    this.#limit();
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
      // The laptop slept, or the browser slowed a hidden page down: silence proves nothing, so ask.
      this.probe();
    } else if (now - this.#heardAt > SILENT_INTERVALS * interval) {
      this.#drop();
    } else {
      this.#ws?.send(HEARTBEAT);
    }
  }

  /** The connection is dead, whatever the browser says: a close handshake with nobody would take a minute. */
  #drop() {
    this.#end({ kind: "lost", code: null, lasted: this.lasted() }, null, 4000, "PING_TIMEOUT");
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    const given = code === 1006 ? null : code;
    if (this.welcomed) this.#end({ kind: "lost", code: given, lasted: this.lasted() }, null);
    else if (given === null) this.#end({ kind: "unreachable" }, null);
    else this.#end({ kind: "lost", code: given, lasted: 0 }, reason || null);
  }

  /** @param {Happened} happened @param {string | null} why @param {number} [code] @param {string} [reason] */
  #end(happened, why, code, reason) {
    this.close(code, reason);
    this.#listener.ended(happened, why);
  }
}
