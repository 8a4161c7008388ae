/**
 * The phone's camera: opened at the back, switchable, let go when nobody looks; and why it cannot be had, in one word.
 */

/**
 * `INSECURE`: browsers give no camera to a page without https. `UNSUPPORTED`: this browser has none to give. `REFUSED`:
 * the person or the system said no. `MISSING`: there is none. `BUSY`: another app holds it. `FAILED`: anything else.
 * @typedef {"INSECURE" | "UNSUPPORTED" | "REFUSED" | "MISSING" | "BUSY" | "FAILED"} Trouble
 */

/**
 * Whether a camera may be asked for at all; `null`: it may.
 * @param {{isSecureContext: boolean, navigator: {mediaDevices?: unknown}}} where the window
 * @returns {Trouble | null}
 */
export function hindrance(where) {
  if (!where.isSecureContext) return "INSECURE";
  return where.navigator.mediaDevices ? null : "UNSUPPORTED";
}

/**
 * What an error of `getUserMedia` means (Media Capture and Streams, 10.2; old names are of old Safari and WebKit).
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

/** One camera at a time, shown in `video`. Event `ended`: the system took it away (a call, another app, the lock). */
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

  /** Whether it films the person who holds it: such a preview is shown mirrored, as people expect of a mirror. */
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
   * @returns {Promise<boolean>} `false`: it was closed while it opened
   * @throws whatever `getUserMedia` throws: see `troubleOf`
   */
  async start() {
    return this._use({ facingMode: { ideal: this._facing } });
  }

  /** The camera of the other side; where sides are not known (a computer), the next one. */
  async turn() {
    const before = this._settings?.deviceId;
    this._facing = this.facesUser ? "environment" : "user";
    if (!(await this._use({ facingMode: { ideal: this._facing } }))) return;
    if (before === undefined || this._settings?.deviceId !== before) return;
    const others = await cameras();
    const next = others[(others.indexOf(before) + 1) % others.length];
    if (next !== undefined && next !== before) await this._use({ deviceId: { exact: next } });
  }

  /** Let the camera go; its light goes out. */
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
      return false; // let go while it began to play
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

/** The ids of the cameras; their number is known only after the permission was given. */
async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter((device) => device.kind === "videoinput").map((device) => device.deviceId);
}
