/** The toolbar of the wall, in English. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  "sound.on": "Alerts on",
  "sound.off": "Alerts off",
  "sound.blocked": "Click once to hear alerts",
  "sound.blocked.means": "Browsers play sound only after a click on the page, or a key.",
  "sound.key": "Turn the sound and the number in the tab’s title on or off (m)",
  "sound.try": "Play the sound of an alert",
};
