/** Describes this phone: a random id, and model and system as far as the browser tells them. */

const REMEMBERED = "examwire.deviceId";
const LONGEST = 120;

/** @typedef {{deviceId: string, model: string, osVersion: string}} Device */

/**
 * Return model and system of a user agent string; empty where it does not say.
 * @param {string} agent
 * @returns {{model: string, osVersion: string}}
 */
export function deviceOf(agent) {
  const apple = /\b(iPhone|iPad|iPod)\b.*?\bOS (\d+(?:_\d+)*)/.exec(agent);
  if (apple) return { model: apple[1], osVersion: `iOS ${apple[2].replaceAll("_", ".")}` };
  const android = /\bAndroid (\d+(?:\.\d+)*)(?:; ([^;)]+?))?(?: Build\/[^;)]*)?\)/.exec(agent);
  // Chrome hides the model: it says "K" for every phone.
  if (android) return { model: android[2] && android[2] !== "K" ? android[2] : "", osVersion: `Android ${android[1]}` };
  const system = /\((?:Windows NT|Macintosh|X11|CrOS)[^)]*\)/.exec(agent);
  return { model: "", osVersion: system ? system[0].slice(1, -1).slice(0, LONGEST) : "" };
}

/**
 * Return this device. Its id is created once and stored, so that a proctor sees that two pictures came from one phone.
 * @returns {Promise<Device>}
 */
export async function thisDevice() {
  const device = deviceOf(navigator.userAgent);
  // Not in every browser, and not without https.
  const hints = /** @type {any} */ (navigator).userAgentData;
  try {
    const { model, platform, platformVersion } = (await hints?.getHighEntropyValues?.(["model", "platformVersion"])) ?? {};
    if (model) device.model = model.slice(0, LONGEST);
    if (platform && platformVersion) device.osVersion = `${platform} ${platformVersion}`.slice(0, LONGEST);
  } catch (error) {
    console.info("examwire: this browser does not tell what device it is on:", String(error)); // the user agent is enough
  }
  return { deviceId: ownId(), ...device };
}

/** Return the stored id, or create one. */
function ownId() {
  const create = () => `M-${Array.from(crypto.getRandomValues(new Uint8Array(8)), hex).join("")}`;
  try {
    const stored = localStorage.getItem(REMEMBERED);
    if (stored && /^[A-Za-z0-9_-]{1,64}$/.test(stored)) return stored;
    const created = create();
    localStorage.setItem(REMEMBERED, created);
    return created;
  } catch {
    return create(); // storage is blocked: a new id next time
  }
}

/** @param {number} byte */
function hex(byte) {
  return byte.toString(16).padStart(2, "0");
}
