/** What this phone says about itself: a name of its own, and model and system as far as the browser tells them. */

const REMEMBERED = "examwire.deviceId";
const LONGEST = 120;

/** @typedef {{deviceId: string, model: string, osVersion: string}} Device */

/**
 * Model and system from a user agent string; empty where it does not say.
 * @param {string} agent
 * @returns {{model: string, osVersion: string}}
 */
export function deviceOf(agent) {
  const apple = /\b(iPhone|iPad|iPod)\b.*?\bOS (\d+(?:_\d+)*)/.exec(agent);
  if (apple) return { model: apple[1], osVersion: `iOS ${apple[2].replaceAll("_", ".")}` };
  const android = /\bAndroid (\d+(?:\.\d+)*)(?:; ([^;)]+?))?(?: Build\/[^;)]*)?\)/.exec(agent);
  // "K" is what Chrome says of every phone since it hides the model.
  if (android) return { model: android[2] && android[2] !== "K" ? android[2] : "", osVersion: `Android ${android[1]}` };
  const other = /\((?:Windows NT|Macintosh|X11|CrOS)[^)]*\)/.exec(agent);
  return { model: "", osVersion: other ? other[0].slice(1, -1).slice(0, LONGEST) : "" };
}

/**
 * This device. Its id is made once and kept, so that a proctor sees that two pictures came from one phone.
 * @returns {Promise<Device>}
 */
export async function thisDevice() {
  const said = deviceOf(navigator.userAgent);
  // Not in every browser, and not without https.
  const hints = /** @type {any} */ (navigator).userAgentData;
  try {
    const { model, platform, platformVersion } = (await hints?.getHighEntropyValues?.(["model", "platformVersion"])) ?? {};
    if (model) said.model = model.slice(0, LONGEST);
    if (platform && platformVersion) said.osVersion = `${platform} ${platformVersion}`.slice(0, LONGEST);
  } catch (error) {
    console.info("examwire: this browser does not tell what device it is on:", String(error)); // its agent string says enough
  }
  return { deviceId: ownId(), ...said };
}

function ownId() {
  const made = () => `M-${Array.from(crypto.getRandomValues(new Uint8Array(8)), hex).join("")}`;
  try {
    const kept = localStorage.getItem(REMEMBERED);
    if (kept && /^[A-Za-z0-9_-]{1,64}$/.test(kept)) return kept;
    const fresh = made();
    localStorage.setItem(REMEMBERED, fresh);
    return fresh;
  } catch {
    return made(); // storage is forbidden: another name next time
  }
}

/** @param {number} byte */
function hex(byte) {
  return byte.toString(16).padStart(2, "0");
}
