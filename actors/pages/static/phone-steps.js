/**
 * What the two steps of the phone's page look like that have many states: the camera and the upload. They are told where
 * things stand, and decide nothing.
 */

import { hasText, t } from "./i18n.js";
import { byId } from "./page-parts.js";

/**
 * The camera's step: the finder, or why there is none and what to do about it.
 * @param {{camera: import("./phone-camera.js").Camera, opening: boolean, trouble: string | null, late: boolean}} state
 */
export function showCamera({ camera, opening, trouble, late }) {
  const live = camera.open && !opening;
  byId("finder").hidden = trouble !== null && !live && !opening;
  byId("camera-opening").hidden = !opening;
  byId("video").classList.toggle("mirrored", camera.facesUser);
  const said = trouble ?? (late ? "late" : null);
  const title = said === null ? "" : hasText(`trouble.${said}`) ? `trouble.${said}` : `camera.${said}`;
  byId("trouble").hidden = said === null;
  byId("trouble-title").textContent = title && t(title);
  byId("trouble-text").textContent = hasText(`${title}.do`) ? t(`${title}.do`) : "";
  byId("camera-hint").hidden = said !== null;
  byId("shutter").hidden = !live;
  byId("turn").hidden = !live || !camera.several;
  byId("reopen").hidden = live || opening || trouble === null || trouble === "INSECURE" || trouble === "UNSUPPORTED";
  byId("picker").classList.toggle("primary", !live && !opening);
  byId("picker").classList.toggle("large", !live && !opening);
  byId("picker-label").textContent = t(live || opening ? "camera.file" : "camera.fileFirst");
}

/**
 * The upload's step: how far it is, why it waits, what can be done.
 * @param {import("./phone-queue.js").Upload} upload
 * @param {number} share of the picture that was sent, in [0, 1]
 * @param {boolean} lasting whether the picture outlives a page that is closed
 */
export function showUpload(upload, share, lasting) {
  const { state, cause, detail } = upload;
  const first = state === "ready" && cause === null;
  const going = state === "sending" || first;
  const title = going ? "upload.sending" : state === "ready" ? "upload.waiting" : `upload.${state}`;
  const text = going ? "upload.sending.text" : state === "late" ? "upload.late.text" : `upload.${cause}`;
  byId("upload-title").textContent = t(title);
  byId("upload-text").textContent = t(text, { detail: detail ?? "" });
  byId("upload-progress").hidden = !going;
  const percent = Math.round(share * 100);
  /** @type {HTMLProgressElement} */ (byId("progress")).value = percent;
  byId("progress-text").textContent = percent < 100 ? t("upload.percent", { n: percent }) : t("upload.checking");
  byId("next-try").hidden = state !== "ready" || first;
  byId("keep-open").hidden = lasting || state === "refused";
  byId("try-now").hidden = going || (state === "refused" && cause !== "REFUSED");
  byId("try-now").textContent = t(state === "ready" ? "upload.tryNow" : "upload.again");
  byId("upload-retake").hidden = state !== "refused" || cause === "TOKEN";
  byId("upload-code").hidden = going || state === "ready";
  byId("upload-code").classList.toggle("primary", cause === "TOKEN" && state === "refused");
}
