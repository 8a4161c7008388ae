/**
 * Prepares a picture for the upload: upright, at most 2,048 pixels long, JPEG, without EXIF (place, device, time).
 */

/** The long edge of what is sent, in pixels: a document on it can still be read. */
export const LONG_EDGE = 2048;
export const QUALITY = 0.85;
const QUALITIES = [QUALITY, 0.7, 0.55];
const SMALLEST_EDGE = 480;

/** This browser cannot read the file as a picture. */
export class NotAPicture extends Error {}

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
 * @throws {NotAPicture}
 */
export async function jpegOf(source, maxBytes) {
  const still = source instanceof Blob ? await decoded(source) : await frameOf(source);
  try {
    for (const { edge, quality } of attempts(Math.max(still.width, still.height))) {
      const [width, height] = fitted(still.width, still.height, edge);
      const blob = await encoded(still.image, width, height, quality);
      if (blob.size <= maxBytes) return { blob, width, height };
    }
  } finally {
    still.release();
  }
  throw new NotAPicture(`it does not fit into ${maxBytes} bytes`);
}

/** @typedef {{image: CanvasImageSource, width: number, height: number, release: () => void}} Still */

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
    throw new NotAPicture(String(error));
  }
  return { image, width: image.naturalWidth, height: image.naturalHeight, release: () => URL.revokeObjectURL(url) };
}

/** @param {HTMLVideoElement} video @returns {Promise<Still>} */
async function frameOf(video) {
  if (!video.videoWidth) throw new NotAPicture("the camera shows nothing yet");
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
  if (context === null) return Promise.reject(new NotAPicture("this browser has no canvas"));
  context.fillStyle = "#fff"; // background of transparent parts, for JPEG has no transparency
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    const done = (/** @type {Blob | null} */ blob) =>
      blob === null ? reject(new NotAPicture("this browser cannot make a JPEG of it")) : resolve(blob);
    canvas.toBlob(done, "image/jpeg", quality);
  });
}
