// The panel of an examinee without a browser: browsers in words, moments, and outages whose time goes on.

import assert from "node:assert/strict";
import { test } from "node:test";

import { appointment, moment, useTexts } from "../../../../actors/pages/static/common/i18n.js";
import { texts as wallEn } from "../../../../actors/pages/static/proctor/locales/en.js";
import { texts as panelEn } from "../../../../actors/pages/static/proctor/panel/texts.en.js";
import { browserText } from "../../../../actors/pages/static/proctor/panel/facts.js";
import { outagesText } from "../../../../actors/pages/static/proctor/panel/outages.js";

useTexts({ en: { ...wallEn, ...panelEn } });

const WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)";
const ANDROID = "Mozilla/5.0 (Linux; Android 14; SM-S918N) AppleWebKit/537.36 (KHTML, like Gecko)";
const IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";

test("a user agent is told in words, and what is none as it is", () => {
  const told = {
    [`${WINDOWS} Chrome/131.0.0.0 Safari/537.36`]: "Chrome 131 on Windows",
    [`${WINDOWS} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0`]: "Edge 131 on Windows",
    [`${WINDOWS} Chrome/128.0.0.0 Whale/3.28.266.14 Safari/537.36`]: "Whale 3 on Windows",
    [`${WINDOWS} Chrome/120.0.0.0 Safari/537.36 SEB/3.7.0`]: "Safe Exam Browser 3 on Windows",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0": "Firefox 133 on Windows",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15": "Safari 18 on Mac",
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36": "Chrome 130 on ChromeOS",
    [`${ANDROID} SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36`]: "Samsung Internet 27 on Android",
    [`${ANDROID} Version/4.0 Chrome/131.0.0.0 Mobile Safari/537.36;KAKAOTALK 2411020`]: "KakaoTalk on Android",
    [`${IPHONE} Version/17.5 Mobile/15E148 Safari/604.1`]: "Safari 17 on iPhone",
    [`${IPHONE} CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1`]: "Chrome 131 on iPhone",
    "Python/3.12 websockets/15.0": "Python/3.12 websockets/15.0",
    "Mozilla/5.0 (compatible; SomethingNew/1.0)": "Mozilla/5.0 (compatible; SomethingNew/1.0)",
    "": "",
  };
  for (const [agent, words] of Object.entries(told)) assert.equal(browserText(agent), words);
});

test("a moment has its date only if it is not today, one that was agreed on no seconds without need", () => {
  const now = new Date(2026, 10, 30, 9, 30).getTime();
  assert.equal(moment(new Date(2026, 10, 30, 9, 0), now), "09:00:00");
  assert.equal(appointment(new Date(2026, 10, 30, 9, 0), now), "09:00");
  assert.equal(appointment(new Date(2026, 10, 30, 9, 0, 7), now), "09:00:07");
  assert.equal(moment(new Date(2026, 10, 30, 9, 0, 7), now), "09:00:07");
  assert.match(moment(new Date(2026, 10, 29, 9, 0), now), /Nov 29, 2026/);
  assert.match(moment(new Date(2026, 10, 30, 9, 0), null), /Nov 30, 2026/);
});

test("the time of an outage that goes on is counted on, and only within the exam", () => {
  const asOf = Date.parse("2026-11-30T10:00:00.000Z");
  const row = {
    ...{ outages: 2, outageSeconds: 100, longestSeconds: 60, ongoingSeconds: 40, compensateSeconds: 100, clientClosedSeconds: 0 },
    stillDisconnected: true,
  };
  const away = { goesOn: true, ownClose: false, compensated: false };
  const at = (seconds, given = away, more = {}) => outagesText({ ...row, ...more }, asOf, asOf + seconds * 1000, given);
  assert.equal(at(0), "2 outages, 1 min 40 sec in total; the longest 1 min. The last one has not ended. Time to compensate: 1 min 40 sec.");
  assert.equal(at(30.9), "2 outages, 2 min 10 sec in total; the longest 1 min 10 sec. The last one has not ended. Time to compensate: 2 min 10 sec.");
  const end = { windowEnd: "2026-11-30T10:00:20.000Z" };
  assert.equal(at(900, away, end), at(20));
  assert.equal(at(-5, away, { windowStart: "2026-11-30T10:01:00.000Z" }), at(0));
  // The examinee is back, and the log was not read again yet.
  assert.equal(at(30, { ...away, goesOn: false }), at(0).replace(" The last one has not ended.", ""));
  const own = { goesOn: true, ownClose: true, compensated: false };
  const closed = "30 sec of it began when the examinee closed the page. The last one has not ended. Time to compensate:";
  assert.match(at(30, own), new RegExp(`2 min 10 sec in total; .* ${closed} 1 min 40 sec`));
  assert.match(at(30, { ...own, compensated: true }), new RegExp(`${closed} 2 min 10 sec`));
  assert.equal(at(0.9, own), at(0), "no second of it is over");
});
