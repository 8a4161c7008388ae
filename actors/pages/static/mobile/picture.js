/**
 * Prepares a picture for the upload: upright, at most 2,048 pixels long, JPEG, without EXIF (place, device, time).
 */

import { formatOf, inspected } from "./picture-file.js";

/** The long edge of what is sent, in pixels: a document on it can still be read. */
export const LONG_EDGE = 2048;
export const QUALITY = 0.85;
const QUALITIES = [QUALITY, 0.7, 0.55];
const SMALLEST_EDGE = 480;

/** Larger files are not read: no camera writes them, and a phone has little memory. */
const MOST_BYTES = 150_000_000;
/** More pixels than this are too many for a browser that cannot decode a picture which is whole. */
const MANY_PIXELS = 30_000_000;

/**
 * Why a file cannot be sent as a picture; the texts are in `common/picture-problems.js`. `HEIC` and `IMAGE_NOT_SUPPORTED`: this
 * browser cannot read its format.
 * @typedef {"IMAGE_TOO_LARGE"|"IMAGE_DAMAGED"|"HEIC"|"IMAGE_NOT_SUPPORTED"|"NOT_AN_IMAGE"} PictureProblem
 */

/** This file, or what the camera shows, cannot be sent as a picture. */
export class UnusablePicture extends Error {
  /** @param {PictureProblem} problem @param {string} detail */
  constructor(problem, detail) {
    super(detail);
    this.problem = problem;
  }
}

/**
 * Return width and height for a long edge of at most `edge`; a smaller picture keeps its size.
 * @param {number} width
 * @param {number} height
 * @param {number} edge
 * @returns {[number, number]}
 */
export function fitted(width, height, edge) {
  const share = Math.min(1, edge / Math.max(width, height));
  return [Math.max(1, Math.round(width * share)), Math.max(1, Math.round(height * share))];
}

/**
 * List the sizes and qualities to try until a picture is small enough, best first: lower quality, then fewer pixels.
 * @param {number} longEdge of the picture
 * @returns {{edge: number, quality: number}[]}
 */
export function attempts(longEdge) {
  const first = Math.min(LONG_EDGE, longEdge);
  const tries = QUALITIES.map((quality) => ({ edge: first, quality }));
  for (let edge = first * 0.75; edge >= SMALLEST_EDGE; edge *= 0.75) {
    tries.push({ edge: Math.round(edge), quality: QUALITIES[QUALITIES.length - 1] });
  }
  return tries;
}

/**
 * Make the JPEG to send from a file or from the current camera image.
 * @param {Blob | HTMLVideoElement} source
 * @param {number} maxBytes
 * @returns {Promise<{blob: Blob, width: number, height: number}>}
 * @throws {UnusablePicture}
 */
export async function jpegOf(source, maxBytes) {
  const still = source instanceof Blob ? await opened(source) : await frameOf(source);
  try {
    for (const { edge, quality } of attempts(Math.max(still.width, still.height))) {
      const [width, height] = fitted(still.width, still.height, edge);
      const blob = await encoded(still.image, width, height, quality);
      if (blob.size <= maxBytes) return { blob, width, height };
    }
  } finally {
    still.release();
  }
  throw new UnusablePicture("IMAGE_TOO_LARGE", `it does not fit into ${maxBytes} bytes`);
}

/** @typedef {{image: CanvasImageSource, width: number, height: number, release: () => void}} Still */

/**
 * Check that a file is a whole picture, and decode it.
 * @param {Blob} blob
 * @returns {Promise<Still>}
 * @throws {UnusablePicture}
 */
async function opened(blob) {
  const { format, whole, pixels } = await inspectedFile(blob);
  if (!whole) throw new UnusablePicture("IMAGE_DAMAGED", `the ${format} is cut off or damaged`);
  try {
    return await decoded(blob);
  } catch (error) {
    throw new UnusablePicture(undecodable(format, pixels), `${format ?? "a file of another kind"}: ${error}`);
  }
}

/**
 * Read a file.
 * @param {Blob} blob
 * @returns {Promise<import("./picture-file.js").PictureFile>}
 * @throws {UnusablePicture}
 */
async function inspectedFile(blob) {
  const most = blob.size > MOST_BYTES ? 12 : blob.size;
  let bytes;
  try {
    bytes = new Uint8Array(await blob.slice(0, most).arrayBuffer());
  } catch (error) {
    throw new UnusablePicture("IMAGE_DAMAGED", `it cannot be read: ${error}`); // deleted, or not loaded from a cloud yet
  }
  if (bytes.length === 0) throw new UnusablePicture("IMAGE_DAMAGED", "it is empty");
  if (most === blob.size) return inspected(bytes);
  throw new UnusablePicture(formatOf(bytes) === null ? "NOT_AN_IMAGE" : "IMAGE_TOO_LARGE", `${blob.size} bytes`);
}

/**
 * Return why a browser cannot decode a file that is whole.
 * @param {import("./picture-file.js").Format | null} format
 * @param {number} pixels
 * @returns {PictureProblem}
 */
export function undecodable(format, pixels) {
  if (format === null) return "NOT_AN_IMAGE";
  if (format === "HEIC") return "HEIC";
  if (format !== "JPEG" && format !== "PNG") return "IMAGE_NOT_SUPPORTED";
  return pixels > MANY_PIXELS ? "IMAGE_TOO_LARGE" : "IMAGE_DAMAGED";
}

/** @param {Blob} blob @returns {Promise<Still>} */
async function decoded(blob) {
  try {
    const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    return { image: bitmap, width: bitmap.width, height: bitmap.height, release: () => bitmap.close() };
  } catch {
    // Some browsers read HEIC only in <img>; old ones do not know the options of createImageBitmap.
    return decodedByElement(blob);
  }
}

/** @param {Blob} blob @returns {Promise<Still>} */
async function decodedByElement(blob) {
  const image = new Image();
  const url = URL.createObjectURL(blob);
  image.src = url;
  try {
    await image.decode();
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  return { image, width: image.naturalWidth, height: image.naturalHeight, release: () => URL.revokeObjectURL(url) };
}

/** @param {HTMLVideoElement} video @returns {Promise<Still>} */
async function frameOf(video) {
  if (!video.videoWidth) throw new UnusablePicture("NOT_AN_IMAGE", "the camera shows nothing yet");
  const bitmap = await createImageBitmap(video);
  return { image: bitmap, width: bitmap.width, height: bitmap.height, release: () => bitmap.close() };
}

/**
 * @param {CanvasImageSource} image
 * @param {number} width
 * @param {number} height
 * @param {number} quality
 * @returns {Promise<Blob>}
 */
function encoded(image, width, height, quality) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { alpha: false });
  if (context === null) return Promise.reject(new UnusablePicture("IMAGE_TOO_LARGE", "this browser has no canvas of that size"));
  context.fillStyle = "#fff"; // background of transparent parts, for JPEG has no transparency
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    const done = (/** @type {Blob | null} */ blob) =>
      blob === null ? reject(new UnusablePicture("IMAGE_TOO_LARGE", "this browser cannot make a JPEG of it")) : resolve(blob);
    canvas.toBlob(done, "image/jpeg", quality);
  });
}
