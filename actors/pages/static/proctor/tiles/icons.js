/**
 * The icons of the tiles as background images, in the colours of the design tokens.
 *
 * With 2,000 inline SVG elements each frame takes 50 ms longer; an image is drawn once and copied. A style sheet sets the
 * images, so that the browser computes the style once for all tiles of a state.
 */

import { ORDER, STATES } from "../examinees.js";

const sheet = new CSSStyleSheet();

/** Draw them for the colour scheme that is in use, or without colours for a wall that is not up to date. */
export function paintIcons() {
  const root = document.documentElement;
  const style = getComputedStyle(root);
  const forced = matchMedia("(forced-colors: active)").matches;
  const body = getComputedStyle(document.body);
  const rules = ORDER.map((state) => {
    const { tone, path, alarm } = STATES[state];
    const token = root.hasAttribute("data-stale") ? "--ink-soft" : `--${tone}`;
    const inverted = alarm && !root.hasAttribute("data-stale"); // tiles.css
    const colour = forced ? body[inverted ? "backgroundColor" : "color"] : style.getPropertyValue(token).trim();
    const image = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="${colour}" d="${path}"/></svg>`;
    return `[data-icon="${state}"] { background-image: url("data:image/svg+xml,${encodeURIComponent(image)}") !important }`;
  });
  sheet.replaceSync(rules.join("\n"));
}

/** Paint them now, and again when the colours change. */
export function keepIconsPainted() {
  document.adoptedStyleSheets.push(sheet);
  paintIcons();
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
    matchMedia(query).addEventListener("change", paintIcons);
  }
}
