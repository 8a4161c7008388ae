/** The first page: links to the other pages, and how many socket servers are ready. */

import { languagePicker, languages, t, useTexts } from "../common/i18n.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

const state = /** @type {HTMLElement} */ (document.getElementById("state"));
/** @type {{key: string, tone: string, n: number}} */
let shown = { key: "state.asking", tone: "quiet", n: 0 };

useTexts({ en, ko });
languagePicker(/** @type {HTMLSelectElement} */ (document.getElementById("language")));
languages.addEventListener("change", show);
shown = await ask();
show();

/** Return the text for the number of ready socket servers. */
async function ask() {
  try {
    const response = await fetch("/v1/endpoints", { cache: "no-store" });
    if (response.status === 503) return { key: "state.none", tone: "bad", n: 0 };
    if (!response.ok) return { key: "state.unreachable", tone: "warn", n: 0 };
    const { socketServers } = await response.json();
    return { key: "state.servers", tone: "good", n: socketServers.length };
  } catch {
    return { key: "state.unreachable", tone: "warn", n: 0 };
  }
}

function show() {
  state.dataset.tone = shown.tone;
  state.dataset.i18n = shown.key;
  state.textContent = t(shown.key, { n: shown.n });
}
