/**
 * The phone's camera: opens the back camera, switches, closes; and names why it cannot be opened.
 */

/**
 * `INSECURE`: browsers allow the camera only with https. `UNSUPPORTED`: this browser cannot use a camera. `REFUSED`: the
 * person or the system refused it. `MISSING`: there is no camera. `BUSY`: another app uses it. `FAILED`: anything else.
 * @typedef {"INSECURE" | "UNSUPPORTED" | "REFUSED" | "MISSING" | "BUSY" | "FAILED"} Trouble
 */

/**
 * Return why the page cannot use a camera at all; `null`: it can.
 * @param {{isSecureContext: boolean, navigator: {mediaDevices?: unknown}}} where the window
 * @returns {Trouble | null}
 */
export function hindrance(where) {
  if (!where.isSecureContext) return "INSECURE";
  return where.navigator.mediaDevices ? null : "UNSUPPORTED";
}

/**
 * Return what an error of `getUserMedia` means (Media Capture and Streams, 10.2; old names are of old Safari and WebKit).
 * @param {unknown} error
 * @returns {Trouble}
 */
export function troubleOf(error) {
  switch (/** @type {{name?: string}} */ (error)?.name) {
    case "NotAllowedError":
    case "SecurityError":
    case "PermissionDeniedError":
      return "REFUSED";
    case "NotFoundError":
    case "OverconstrainedError":
    case "DevicesNotFoundError":
      return "MISSING";
    case "NotReadableError":
    case "AbortError":
    case "TrackStartError":
      return "BUSY";
    default:
      return "FAILED";
  }
}

/** Shows one camera in `video`. Fires `ended` when the system has closed it (a call, another app, the lock screen). */
export class Camera extends EventTarget {
  /** @param {HTMLVideoElement} video */
  constructor(video) {
    super();
    this.video = video;
    /** @type {MediaStream | null} */ this._stream = null;
    /** @type {"environment" | "user"} */ this._facing = "environment";
    this._opening = 0;
    this.several = false;
  }

  /** Whether it is the front camera: its preview is mirrored. */
  get facesUser() {
    return (this._settings?.facingMode ?? this._facing) === "user";
  }

  get open() {
    return this._stream?.getVideoTracks().some((track) => track.readyState === "live") ?? false;
  }

  get _settings() {
    return this._stream?.getVideoTracks()[0]?.getSettings();
  }

  /**
   * Open the camera of the side that was used last, first the one at the back.
   * @returns {Promise<boolean>} `false`: it was closed while it was opening
   * @throws whatever `getUserMedia` throws: see `troubleOf`
   */
  async start() {
    return this._use({ facingMode: { ideal: this._facing } });
  }

  /** Switch between front and back camera; where the sides are unknown (a computer), take the next camera. */
  async turn() {
    const before = this._settings?.deviceId;
    this._facing = this.facesUser ? "environment" : "user";
    if (!(await this._use({ facingMode: { ideal: this._facing } }))) return;
    if (before === undefined || this._settings?.deviceId !== before) return;
    const others = await cameras();
    const next = others[(others.indexOf(before) + 1) % others.length];
    if (next !== undefined && next !== before) await this._use({ deviceId: { exact: next } });
  }

  /** Close the camera. */
  stop() {
    this._opening += 1;
    this._release();
  }

  /** @param {MediaTrackConstraints} which @returns {Promise<boolean>} */
  async _use(which) {
    const mine = (this._opening += 1);
    this._release(); // many phones open one camera at a time only
    const video = { ...which, width: { ideal: 1920 }, height: { ideal: 1080 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    if (mine !== this._opening) {
      for (const track of stream.getTracks()) track.stop();
      return false;
    }
    this._stream = stream;
    for (const track of stream.getVideoTracks()) {
      track.addEventListener("ended", () => this._stream === stream && this.dispatchEvent(new Event("ended")));
    }
    this.video.srcObject = stream;
    try {
      await this.video.play();
    } catch (error) {
      if (mine === this._opening) throw error;
      return false; // closed while it began to play
    }
    this.several = (await cameras()).length > 1;
    return mine === this._opening;
  }

  _release() {
    for (const track of this._stream?.getTracks() ?? []) track.stop();
    this._stream = null;
    this.video.srcObject = null;
  }
}

/** Return the ids of the cameras; complete only after the permission was given. */
async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput").map((device) => device.deviceId);
}
