/**
 * One attempt to upload a picture, with XMLHttpRequest: only that reports the progress of an upload in every browser.
 */

import { retryAfterSeconds } from "./upload-rules.js";

/** An attempt ends after so many seconds without progress: a mobile network often breaks without an error. */
export const STALLED_SECONDS = 20;

/**
 * @typedef {object} Shipment
 * @property {string} url
 * @property {string} token
 * @property {Blob} picture
 * @property {(share: number) => void} progress the sent part, 0 to 1
 */

/**
 * Start to send; `stop` aborts it without a result.
 * @param {Shipment} shipment
 * @returns {{result: Promise<import("./upload-rules.js").Result>, stop: () => void}}
 */
export function send({ url, token, picture, progress }) {
  const request = new XMLHttpRequest();
  let stalled = false;
  /** @type {ReturnType<typeof setTimeout>} */
  let patience;
  const wait = () => {
    clearTimeout(patience);
    patience = setTimeout(() => {
      stalled = true;
      request.abort();
    }, STALLED_SECONDS * 1000);
  };
  const result = new Promise((resolve) => {
    request.upload.onprogress = (event) => {
      wait();
      if (event.lengthComputable && event.total > 0) progress(event.loaded / event.total);
    };
    request.onreadystatechange = wait;
    request.onloadend = () => {
      clearTimeout(patience);
      // Status 0: no answer came.
      resolve(request.status ? answerOf(request) : { kind: "network", stalled, offline: navigator.onLine === false });
    };
  });
  request.open("PUT", url);
  request.setRequestHeader("Authorization", `Bearer ${token}`);
  request.setRequestHeader("Content-Type", "image/jpeg");
  request.send(picture);
  wait();
  return { result: /** @type {Promise<import("./upload-rules.js").Result>} */ (result), stop: () => request.abort() };
}

/** Return the answer to a request. @param {XMLHttpRequest} request @returns {import("./upload-rules.js").Result} */
function answerOf(request) {
  const retryAfter = retryAfterSeconds(request.getResponseHeader("Retry-After"), Date.now());
  return { kind: "answer", status: request.status, retryAfter, body: jsonOf(request.responseText) };
}

/** Parse JSON; an answer that is not JSON comes from a proxy and is ignored. @param {string} text */
function jsonOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * Return the address to which an examinee's picture is uploaded (`PUT`; docs/protocol.md).
 * @param {{planId: string, examineeId: string}} pass
 * @param {{deviceId: string, model: string, osVersion: string}} device
 */
export function uploadUrl({ planId, examineeId }, device) {
  const place = `/v1/plans/${encodeURIComponent(planId)}/examinees/${encodeURIComponent(examineeId)}/mobile-sync`;
  const known = Object.entries(device).filter(([, value]) => value !== "");
  return `${place}?${new URLSearchParams(known)}`;
}
