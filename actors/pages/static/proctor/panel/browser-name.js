/** Names browser and system of a user agent, for people. Pure. */

/**
 * The browsers by their name and the number that follows it. The order counts: almost all call themselves Chrome and Safari, too.
 * @type {readonly [string, RegExp][]}
 */
const BROWSERS = [
  ["Safe Exam Browser", /\bSEB\b(?:[/ ]?(\d+))?/],
  ["KakaoTalk", /\bKAKAOTALK\b/i],
  ["NAVER", /\bNAVER\(inapp;[^)]*?;\s*(\d+)\.[\d.]+\)/],
  ["Whale", /\bWhale\/(\d+)/],
  ["Samsung Internet", /\bSamsungBrowser\/(\d+)/],
  ["Edge", /\b(?:Edg|EdgA|EdgiOS|Edge)\/(\d+)/],
  ["Opera", /\b(?:OPR|OPT)\/(\d+)/],
  ["Firefox", /\b(?:Firefox|FxiOS)\/(\d+)/],
  ["Chrome", /\b(?:Chrome|HeadlessChrome|CriOS)\/(\d+)/],
  ["Safari", /\bVersion\/(\d+)(?=.*\bSafari\/)/],
];

/** @type {readonly [string, RegExp][]} */
const SYSTEMS = [
  ["iPhone", /\biPhone\b/],
  ["iPad", /\biPad\b/],
  ["Android", /\bAndroid\b/],
  ["ChromeOS", /\bCrOS\b/],
  ["Windows", /\bWindows NT\b/],
  ["Mac", /\bMacintosh\b/],
  ["Linux", /\bLinux\b/],
];

/**
 * Return what a user agent names; `null`: it is that of no known browser.
 * @param {string} agent
 * @returns {{browser: string, system: string} | null} "Edge 131", "Windows"; the system may be empty
 */
export function browserOf(agent) {
  if (!agent.startsWith("Mozilla/")) return null; // what a program says of itself is in words
  for (const [name, pattern] of BROWSERS) {
    const match = pattern.exec(agent);
    if (match === null) continue;
    const system = SYSTEMS.find(([, sign]) => sign.test(agent))?.[0] ?? "";
    return { browser: match[1] ? `${name} ${match[1]}` : name, system };
  }
  return null;
}
