// Who a client is, over reloads, duplicated tabs and the bfcache.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Client } from "../../../../actors/pages/static/examwire.js";
import { Browser, Storage } from "./browser.js";

const hello = (browser) => browser.socket.open().sent[0].data;

test("a reload is the same client, and its connections count on", () => {
  const storage = new Storage();
  const before = new Browser({ storage, draw: 0.1 });
  before.client(Client).connect();
  const first = hello(before);
  before.page("pagehide", false);
  const reloaded = new Browser({ storage, draw: 0.9 });
  reloaded.client(Client).connect();
  const second = hello(reloaded);
  assert.equal(second.clientId, first.clientId);
  assert.equal(second.connectionNo, 2);
});

test("a duplicated tab is a client of its own", () => {
  const original = new Browser({ draw: 0.1 });
  original.client(Client).connect();
  const first = hello(original);
  const copy = new Browser({ storage: new Storage(original.storage.entries), draw: 0.9 });
  copy.client(Client).connect();
  const second = hello(copy);
  assert.notEqual(second.clientId, first.clientId);
  assert.equal(second.connectionNo, 1);
});

test("a tab that was killed begins as a new client, which may always replace the old one", () => {
  const storage = new Storage();
  const killed = new Browser({ storage, draw: 0.1 });
  killed.client(Client).connect();
  const first = hello(killed);
  const restored = new Browser({ storage, draw: 0.9 });
  restored.client(Client).connect();
  assert.notEqual(hello(restored).clientId, first.clientId);
});

test("a page from the bfcache goes on counting where another page of the tab has ended", () => {
  const storage = new Storage();
  const first = new Browser({ storage });
  first.client(Client).connect();
  hello(first);
  first.page("pagehide", true);
  const second = new Browser({ storage });
  const between = second.client(Client);
  between.connect();
  assert.equal(hello(second).connectionNo, 2);
  between.close();
  first.page("pageshow", true);
  assert.equal(hello(first).connectionNo, 3);
});

for (const [what, storage] of [
  ["throws", { getItem: () => { throw new Error("blocked"); }, setItem: () => { throw new Error("blocked"); } }],
  ["holds what is not ours", new Storage({ "examwire.client": '{"clientId":"../..","no":-1,"released":true}' })],
  ["is none", null],
]) {
  test(`a storage that ${what} is no obstacle`, () => {
    const browser = new Browser({ storage });
    browser.client(Client).connect();
    assert.match(hello(browser).clientId, /^[0-9a-f]{16}$/);
    browser.page("pagehide", false);
  });
}
