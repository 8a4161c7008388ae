/**
 * Detects incidents: many examinees who are lost together, and the cause that they share. One incident replaces 300 alarms.
 *
 * Losses within `WINDOW_SECONDS` belong together. The time of the loss counts (which a server gave), not the time of the
 * message: so a wall that was offline, or was just opened, detects the same incidents. The cause is the value of a label (a
 * room), the server, the network prefix (/24, /64), or only the time, whichever separates the lost examinees best from the
 * others (`evidence`). A crowd can have several rooms, servers or networks as causes; each is its own incident.
 *
 * Pure: no DOM, no clock; times are ms since the epoch.
 *
 * @typedef {Readonly<Record<string, string | null>>} Places by cause: where an examinee is
 * @typedef {{id: string, at: number, places: Places, reason: string | null}} Loss
 * @typedef {"lost" | "back" | "out" | "ended"} MemberState `out`: cannot reconnect (shut out, removed, not in the plan);
 *   `ended`: the exam is over for them
 * @typedef {string} Cause "server", "network", "moment", or "label " and the label's name
 */

/** Losses further apart than this do not belong together. */
export const WINDOW_SECONDS = 10;
/** Fewer losses are not an incident. */
export const LEAST_LOSSES = 5;
/** So large a share of the plan is an incident, whatever the cause. */
export const SHARE_OF_PLAN = 0.03;
/** So large a share of a server or a network is one, too: a room of 30 in a plan of 2,000. */
export const SHARE_OF_GROUP = 0.3;
/** A server or network must cover this share of the crowd; else the cause is only the time. */
const LEAST_COVERED = 0.5;
/** The least `evidence` for a cause: by chance it is reached once in ten thousand crowds. */
const SURE_ENOUGH = 15.1;
/** Reasons of losses when a server ends: then the server is the cause. */
const SERVER_REASONS = new Set(["SERVER_LOST", "SERVER_RESTARTED", "SERVER_STOPPED", "SERVER_ISOLATED", "SERVER_DRAINING"]);

/**
 * The network an address belongs to: /24 of IPv4, /64 of IPv6; `null`: not an address.
 * @param {string | null | undefined} address
 */
export function networkOf(address) {
  if (!address) return null;
  const four = /^(?:::ffff:)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.\d{1,3}$/i.exec(address);
  if (four) return `${four[1]}.${four[2]}.${four[3]}.0/24`;
  const plain = address.split("%")[0].toLowerCase();
  if (!/^[0-9a-f:]+$/.test(plain) || !plain.includes(":")) return null;
  const [head, tail] = plain.split("::");
  const front = head.split(":").filter(Boolean);
  const back = tail?.split(":").filter(Boolean) ?? [];
  const zeros = tail === undefined ? 0 : 8 - front.length - back.length;
  const groups = [...front, .../** @type {string[]} */ (Array(Math.max(0, zeros)).fill("0")), ...back];
  if (groups.length !== 8) return null;
  return `${groups.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, "")).join(":")}::/64`;
}

/** The beginning of a cause that is a label. */
export const LABEL = "label ";

/**
 * Return where an examinee is, by cause: the labels, the server and the network.
 * @param {import("../../examwire.js").Seen} seen @returns {Places}
 */
export function placesOf({ labels, serverId, ipAddress }) {
  /** @type {Record<string, string | null>} */
  const places = {};
  for (const name in labels) places[LABEL + name] = labels[name];
  places.server = serverId;
  places.network = networkOf(ipAddress);
  return places;
}

/**
 * Examinees who were lost together. `name`: of the room, server or network, empty for a moment. `of`: how many the plan has
 * there; 0: not known. `members`: the
 * state of each by id; `began` and `last`: the first and latest loss; `ended`: when the last came back or was out, else `null`.
 */
export class Incident {
  /** @param {number} number @param {Cause} cause @param {string} name */
  constructor(number, cause, name) {
    this.number = number;
    this.cause = cause;
    this.name = name;
    /** @type {Map<string, MemberState>} */ this.members = new Map();
    this.of = 0;
    this.began = Infinity;
    this.last = -Infinity;
    /** @type {number | null} */ this.ended = null;
    /** Whether the end of a server is the cause: by the name, or by the reason of one of the first losses. */
    this.serverEnded = cause === "server";
    this.back = 0;
    this.out = 0;
    this.over = 0;
  }

  get size() {
    return this.members.size;
  }

  /** How many are lost and can reconnect. */
  get notBack() {
    return this.size - this.back - this.out - this.over;
  }

  /** Whether a loss belongs to this incident, by its time and cause. @param {Loss} loss */
  fits(loss) {
    if (this.ended !== null) return false;
    const near = loss.at >= this.began - WINDOW_SECONDS * 1000 && loss.at <= this.last + WINDOW_SECONDS * 1000;
    return near && (this.cause === "moment" || loss.places[this.cause] === this.name || this.members.has(loss.id));
  }

  /**
   * Whether a later loss joins this incident. A loss by a server's end does not join an incident with another cause.
   * @param {Loss} loss
   */
  joinedBy(loss) {
    return this.fits(loss) && (this.serverEnded || !SERVER_REASONS.has(loss.reason ?? ""));
  }

  /** Add a loss. @param {Loss} loss @param {MemberState} state */
  take(loss, state) {
    this.began = Math.min(this.began, loss.at);
    this.last = Math.max(this.last, loss.at);
    this.update(loss.id, state);
  }

  /** Set the state of a member. @param {string} id @param {MemberState} state */
  update(id, state) {
    this._count(this.members.get(id), -1);
    this._count(state, 1);
    this.members.set(id, state);
  }

  /** Remove a member who has left the plan. @param {string} id */
  drop(id) {
    this._count(this.members.get(id), -1);
    this.members.delete(id);
  }

  /** Add to the number of members in a state. @param {MemberState | undefined} state @param {number} by */
  _count(state, by) {
    if (state === "back") this.back += by;
    else if (state === "out") this.out += by;
    else if (state === "ended") this.over += by;
  }
}

/**
 * Collects losses and comebacks, in any order of their times; `detect()` then returns the new incidents.
 */
export class Incidents {
  constructor() {
    /** All incidents, open and ended, the oldest first. @type {Incident[]} */
    this.all = [];
    /** Losses in no incident; also of examinees who came back within the window, for they count for a crowd. */
    /** @type {Map<string, Loss & {state: MemberState}>} */ this._singleLosses = new Map();
    /** The open incident of each lost examinee. @type {Map<string, Incident>} */ this._incidentOf = new Map();
    /** Where each examinee is, and the number of examinees in each place, by cause. */
    /** @type {Map<string, Places>} */ this._place = new Map();
    /** @type {Map<Cause, Map<string, number>>} */ this._members = new Map();
    this._newest = -Infinity;
    this._lastNumber = 0;
    /** Whether there are losses that `detect` has not seen. */ this._dirty = false;
  }

  /** The open incident of an examinee. @param {string} id */
  of(id) {
    return this._incidentOf.get(id) ?? null;
  }

  /** The open incidents. */
  get open() {
    return this.all.filter((incident) => incident.ended === null);
  }

  /**
   * Note where an examinee is (or was last) connected: losses are compared with that.
   * @param {string} id
   * @param {Places} places
   */
  place(id, places) {
    const before = this._place.get(id);
    if (before && areSame(before, places)) return;
    this._count(before, -1);
    this._place.set(id, places);
    this._count(places, 1);
  }

  /** Add to the numbers of examinees in these places. @param {Places | undefined} places @param {number} by */
  _count(places, by) {
    for (const cause in places) {
      const name = places[cause];
      if (name === null) continue;
      let members = this._members.get(cause);
      if (members === undefined) this._members.set(cause, (members = new Map()));
      members.set(name, (members.get(name) ?? 0) + by);
    }
  }

  /** How many examinees are in a place. @param {Cause} cause @param {string} name */
  _membersOf(cause, name) {
    return this._members.get(cause)?.get(name) ?? 0;
  }

  /**
   * Note a loss at `at`. A repetition of the same loss (an attempt) changes nothing.
   * @param {string} id
   * @param {number} at
   * @param {string | null} reason
   */
  lost(id, at, reason) {
    const known = this._singleLosses.get(id);
    if (known?.at === at) {
      known.state = "lost";
      return;
    }
    const current = this._incidentOf.get(id);
    const loss = { id, at, reason, places: this._place.get(id) ?? NOWHERE };
    this._newest = Math.max(this._newest, at);
    const incident = current?.joinedBy(loss) ? current : this.all.find((other) => other.joinedBy(loss));
    if (incident) {
      this._singleLosses.delete(id);
      incident.take(loss, "lost");
      this._incidentOf.set(id, incident);
      return;
    }
    this._incidentOf.delete(id);
    this._singleLosses.set(id, { ...loss, state: "lost" });
    this._dirty = true;
  }

  /**
   * Note that an examinee is connected again, cannot reconnect, or is not missed any more.
   * @param {string} id
   * @param {"back" | "out" | "ended"} state
   * @param {number} at when, for the end of the incident
   */
  update(id, state, at) {
    const single = this._singleLosses.get(id);
    if (single) single.state = state;
    const incident = this._incidentOf.get(id);
    if (!incident) return;
    incident.update(id, state);
    if (state === "back") this._incidentOf.delete(id);
    if (incident.notBack === 0) this._end(incident, at);
  }

  /** End an incident. @param {Incident} incident @param {number} at */
  _end(incident, at) {
    incident.ended = at;
    for (const id of incident.members.keys()) if (this._incidentOf.get(id) === incident) this._incidentOf.delete(id);
  }

  /** Forget an examinee who has left the plan. @param {string} id @param {number} at */
  drop(id, at) {
    this.update(id, "ended", at);
    for (const incident of this.open) incident.drop(id);
    this._singleLosses.delete(id);
    this._count(this._place.get(id), -1);
    this._place.delete(id);
  }

  /**
   * Search for crowds among the single losses. Call it after each batch of changes.
   * @returns {Incident[]} the new incidents
   */
  detect() {
    if (!this._dirty) return [];
    this._dirty = false;
    /** @type {Incident[]} */
    const newIncidents = [];
    const window = WINDOW_SECONDS * 1000;
    let singles = [...this._singleLosses.values()].sort((a, b) => a.at - b.at);
    let first = 0;
    let end = 0;
    while (singles.length - first >= LEAST_LOSSES) {
      end = Math.max(end, first);
      while (end < singles.length && singles[end].at - singles[first].at <= window) end += 1;
      const causes = this._causes(singles.slice(first, end));
      if (causes.length === 0) {
        first += 1;
        continue;
      }
      for (const cause of causes) newIncidents.push(this._begin(cause, singles.slice(first)));
      singles = singles.filter((loss) => this._singleLosses.has(loss.id));
      end = 0; // look at the same window again: the rest may have another cause
    }
    for (const [id, loss] of this._singleLosses) {
      if (loss.state !== "lost" && loss.at < this._newest - window) this._singleLosses.delete(id);
    }
    return newIncidents;
  }

  /**
   * Begin an incident with the single losses that fit.
   * @param {{cause: Cause, name: string}} what @param {(Loss & {state: MemberState})[]} singles in the order of time
   */
  _begin({ cause, name }, singles) {
    this._lastNumber += 1;
    const incident = new Incident(this._lastNumber, cause, name);
    for (const loss of singles) {
      const first = incident.size === 0;
      const fits = first ? cause === "moment" || loss.places[cause] === name : incident.fits(loss);
      if (!fits || !this._singleLosses.has(loss.id)) continue;
      this._singleLosses.delete(loss.id);
      incident.take(loss, loss.state);
      incident.serverEnded ||= SERVER_REASONS.has(loss.reason ?? "");
      if (loss.state === "lost") this._incidentOf.set(loss.id, incident);
    }
    if (incident.notBack === 0) incident.ended = incident.last;
    this.all.push(incident);
    return incident;
  }

  /**
   * Return the causes that explain a crowd best: servers, networks, or only the time; empty: not an incident.
   * @param {Loss[]} crowd
   * @returns {{cause: Cause, name: string}[]}
   */
  _causes(crowd) {
    if (crowd.length < LEAST_LOSSES) return [];
    const everybody = Math.max(this._place.size, crowd.length);
    /** @type {{cause: Cause, name: string}[]} */
    let best = crowd.length >= SHARE_OF_PLAN * everybody ? [{ cause: "moment", name: "" }] : [];
    let bestScore = SURE_ENOUGH;
    // Rooms come first: where room and network say the same, people know the room.
    for (const cause of [...this._members.keys()].sort((a, b) => Number(b.startsWith(LABEL)) - Number(a.startsWith(LABEL)))) {
      const groups = [...tally(crowd, cause)].map(([name, hit]) => ({
        name,
        hit: hit.length,
        members: Math.max(this._membersOf(cause, name), hit.length),
        serverEnded: cause === "server" && hit.filter((loss) => SERVER_REASONS.has(loss.reason ?? "")).length >= 0.8 * hit.length,
      }));
      const large = groups.filter(({ hit, members, serverEnded }) => (
        hit >= LEAST_LOSSES && (serverEnded || hit >= SHARE_OF_PLAN * everybody || hit >= SHARE_OF_GROUP * members)));
      const ended = large.filter((group) => group.serverEnded);
      if (ended.length > 0) return ended.map(({ name }) => ({ cause, name }));
      large.sort((a, b) => b.hit / b.members - a.hit / a.members);
      let [hit, members] = [0, 0];
      large.forEach((group, at) => {
        hit += group.hit;
        members += group.members;
        const score = hit >= LEAST_COVERED * crowd.length ? evidence(hit, members, crowd.length, everybody) : 0;
        if (score <= bestScore) return;
        bestScore = score;
        best = large.slice(0, at + 1).map(({ name }) => ({ cause, name }));
      });
    }
    return best;
  }
}

/**
 * The evidence that the loss hits those with a property more than the others: the G statistic of the four counts (a
 * likelihood ratio; by chance it reaches 10.8 once in a thousand). 0 if the others were hit as often.
 * @param {number} hit of `members`, who have the property
 * @param {number} members
 * @param {number} lost of `everybody`
 * @param {number} everybody
 */
function evidence(hit, members, lost, everybody) {
  const others = everybody - members;
  if (others <= 0 || hit / members <= (lost - hit) / others) return 0;
  /** @type {[number, number][]} */
  const cells = [
    [hit, (members * lost) / everybody],
    [members - hit, (members * (everybody - lost)) / everybody],
    [lost - hit, (others * lost) / everybody],
    [others - (lost - hit), (others * (everybody - lost)) / everybody],
  ];
  return 2 * cells.reduce((sum, [seen, expected]) => sum + (seen > 0 ? seen * Math.log(seen / expected) : 0), 0);
}

/** @type {Places} */
const NOWHERE = Object.freeze({ server: null, network: null });

/** Whether two examinees are, or one is still, in the same places. @param {Places} a @param {Places} b */
function areSame(a, b) {
  for (const cause in a) if (a[cause] !== b[cause]) return false;
  for (const cause in b) if (!(cause in a)) return false;
  return true;
}

/** Group the losses by their place. @param {Loss[]} crowd @param {Cause} cause */
function tally(crowd, cause) {
  /** @type {Map<string, Loss[]>} */
  const groups = new Map();
  for (const loss of crowd) {
    const name = loss.places[cause] ?? null;
    if (name === null) continue;
    const group = groups.get(name);
    if (group) group.push(loss);
    else groups.set(name, [loss]);
  }
  return groups;
}
