// A browser without a browser: a clock that is turned by hand, sockets that a test answers, and the page's events.

import assert from "node:assert/strict";

import { Client } from "../../../../actors/pages/static/examwire.js";

export const START = Date.UTC(2026, 10, 22, 9, 0, 0);
export const A = "ws://a:8001/v1/connect";
export const B = "ws://b:8001/v1/connect";
export const C = "ws://c:8001/v1/connect";

/** A WebSocket whose other end is the test. */
export class ScriptedSocket {
  constructor(browser, url, protocol) {
    this.browser = browser;
    this.url = url;
    this.asked = protocol;
    this.protocol = "";
    this.readyState = 0;
    this.sent = [];
    this.closedWith = null;
    browser.sockets.push(this);
  }

  send(text) {
    assert.equal(this.readyState, 1, "sent on a socket that is not open");
    this.sent.push(JSON.parse(text));
  }

  close(code) {
    this.closedWith = code;
    this.readyState = 2;
  }

  // -- the test's side --

  open(protocol = "examwire.v1") {
    this.protocol = protocol;
    this.readyState = 1;
    this.onopen?.({});
    return this;
  }

  say(...messages) {
    const payload = messages.length === 1 ? messages[0] : messages;
    this.onmessage?.({ data: JSON.stringify(payload) });
    return this;
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    if (code === 1006) this.onerror?.({});
    this.onclose?.({ code, reason });
  }

  /** The types of what the client has sent. */
  get types() {
    return this.sent.map((one) => one.type);
  }
}

export class Storage {
  constructor(entries = {}) {
    this.entries = { ...entries };
  }

  getItem(key) {
    return this.entries[key] ?? null;
  }

  setItem(key, value) {
    this.entries[key] = value;
  }
}

export class Browser {
  /** `draw`: what `random()` gives, one value or a list that repeats its last. */
  constructor({ draw = 0.5, storage = new Storage() } = {}) {
    this.time = START;
    this.timers = [];
    this.sockets = [];
    this.draws = [draw].flat();
    this.window = new EventTarget();
    this.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    this.navigator = { onLine: true, userAgent: "Testfox" };
    this.storage = storage;
    this.statuses = [];
    this.events = [];
  }

  get options() {
    const browser = this;
    return {
      token: "token-1",
      storage: this.storage,
      window: this.window,
      document: this.document,
      navigator: this.navigator,
      now: () => this.time,
      steady: () => this.time - START,
      random: () => (this.draws.length > 1 ? this.draws.shift() : this.draws[0]),
      setTimeout: (work, milliseconds) => {
        const timer = { work, at: this.time + milliseconds, running: true };
        this.timers.push(timer);
        return timer;
      },
      clearTimeout: (timer) => {
        this.timers = this.timers.filter((one) => one !== timer);
      },
      WebSocket: class extends ScriptedSocket {
        constructor(url, protocol) {
          super(browser, url, protocol);
        }
      },
    };
  }

  /** A client of a class, whose statuses and events are noted. */
  client(Class, options = {}) {
    const client = new Class({ ...this.options, url: [A, B], ...options });
    client.addEventListener("status", ({ detail }) => this.statuses.push(detail));
    for (const type of ["welcome", "message", "tokenNeeded", "state", "mobileSync", "notice", "change", "fresh", "viewStatus", "plan", "finished", "resumed", "help"]) {
      client.addEventListener(type, ({ detail }) => this.events.push({ type, detail }));
    }
    return client;
  }

  /** Let time pass; timers run when they are due, or late by `late` seconds when the machine stood still. */
  pass(seconds) {
    const until = this.time + seconds * 1000;
    for (;;) {
      const next = this.timers.reduce((best, one) => (best === null || one.at < best.at ? one : best), null);
      if (next === null || next.at > until) break;
      this.timers = this.timers.filter((one) => one !== next);
      this.time = Math.max(this.time, next.at);
      next.work();
    }
    this.time = until;
  }

  /** The laptop sleeps: the clock goes on, timers stand still by so much. */
  sleep(seconds) {
    this.time += seconds * 1000;
    for (const timer of this.timers) timer.at += seconds * 1000;
  }

  network(there) {
    this.navigator.onLine = there;
    this.window.dispatchEvent(new Event(there ? "online" : "offline"));
  }

  show(visible) {
    this.document.visibilityState = visible ? "visible" : "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  page(type, persisted) {
    this.window.dispatchEvent(Object.assign(new Event(type), { persisted }));
  }

  get socket() {
    return this.sockets.at(-1);
  }

  get states() {
    return this.statuses.map((one) => one.state);
  }

  told(type) {
    return this.events.filter((one) => one.type === type).map((one) => one.detail);
  }
}

export function welcome(more = {}) {
  const data = {
    role: "examinee",
    planId: "P001",
    examineeId: "E001",
    serverId: "SOCK001",
    socketId: "SOCK001-x1",
    heartbeatSeconds: 5,
    reconnect: { maxAttempts: 5, backoffSeconds: [5, 10, 20, 40, 60], jitter: 0.3 },
    endpoints: [A, B],
    ...more,
  };
  return { type: "welcome", data };
}

/** A click or a key, as far as `isTrusted` goes: only a browser makes such an event. */
export const click = { isTrusted: true };

/** A client that has been connected for a minute, all heartbeats answered. */
export function connected({ Class = Client, browser = new Browser(), options = {}, ...more } = {}) {
  const client = browser.client(Class, options);
  client.connect();
  browser.socket.open().say(welcome(more));
  live(browser, 60);
  return { browser, client, socket: browser.socket };
}

/** Time passes on a network that works: every heartbeat is echoed. */
export function live(browser, seconds) {
  for (let second = 0; second < seconds; second += 1) {
    const { socket } = browser;
    const before = socket.sent.length;
    browser.pass(1);
    if (socket.sent.slice(before).some((one) => one.type === "heartbeat")) socket.say({ type: "heartbeat", data: {} });
  }
}

/** Numbers that were computed in another order. */
export const near = (actual, expected) => assert.ok(Math.abs(actual - expected) < 1e-6, `${actual} instead of ${expected}`);
