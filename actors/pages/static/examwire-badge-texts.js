// The words of the badge, in English and Korean.

/** @type {Record<string, Record<string, string>>} */
export const TEXTS = {
  en: {
    label: "Connection to the exam",
    idle: "Not connected",
    connecting: "Connecting…",
    connected: "Connected",
    behind: "Connected. The exam system is delayed.",
    again: "Connection lost. Reconnecting…",
    offline: "No network. This page reconnects when the network is back.",
    attempt: "Attempt {attempt} of {maxAttempts}",
    next: "Next attempt in {seconds} s",
    tryNow: "Try now",
    here: "Continue here",
    ATTEMPTS_USED_UP: "Not connected. Check your network, then try again.",
    ALWAYS_BUSY: "Not connected. The server is busy; try again in a moment.",
    BLOCKED: "Not connected. The exam servers have changed. Reload this page.",
    HTTP_STATUS: "Not connected. The server does not accept this page.",
    INVALID_TOKEN: "Your sign-in has expired. Sign in again.",
    TOKEN_NOT_YET_VALID: "Your sign-in is not valid yet. Try again in a moment, or tell the proctor.",
    REPLACED: "The exam is open in another window or on another device.",
    RECONNECT_LIMIT_EXCEEDED: "You were away for too long. Ask the proctor to let you in again, then try again.",
    REMOVED: "A proctor has ended your exam. Ask the proctor.",
    FORBIDDEN: "This sign-in is not for the exam. Sign in as an examinee.",
    CLOSED: "The connection has ended. Tell the proctor.",
    HANDED_IN: "You have handed in.",
    DECIDED: "A proctor has ended your exam.",
    PLAN_ENDED: "The exam is over.",
    EXAM_OVER: "The exam is over.",
    notBegun: "Connected. The exam has not begun.",
    startsIn: "Starts in {time}",
    left: "{time} left",
    grace: "{time} left to hand in",
    timeUp: "Connected. The time is up.",
    soon: "{n} minutes left.",
    askForHelp: "Ask for help",
    helpAsking: "Asking for help…",
    helpAsked: "A proctor has been told.",
    helpTaken: "{by} has taken your request.",
    noHelp: "No help needed",
  },
  ko: {
    label: "시험 연결 상태",
    idle: "연결되어 있지 않습니다",
    connecting: "연결하고 있습니다…",
    connected: "연결되었습니다",
    behind: "연결되었습니다. 접속 상태는 잠시 후 기록됩니다.",
    again: "연결이 끊어져 다시 연결하고 있습니다…",
    offline: "네트워크가 끊어졌습니다. 복구되면 바로 다시 연결합니다.",
    attempt: "{maxAttempts}회 중 {attempt}회째 시도",
    next: "{seconds}초 후 다시 시도합니다",
    tryNow: "지금 다시 시도",
    here: "여기에서 계속하기",
    ATTEMPTS_USED_UP: "연결하지 못했습니다. 네트워크를 확인한 후 다시 시도해 주십시오.",
    ALWAYS_BUSY: "서버가 혼잡하여 연결하지 못했습니다. 잠시 후 다시 시도해 주십시오.",
    BLOCKED: "시험 서버가 변경되었습니다. 페이지를 새로 고쳐 주십시오.",
    HTTP_STATUS: "서버에서 이 페이지의 연결을 허용하지 않습니다.",
    INVALID_TOKEN: "로그인 시간이 만료되었습니다. 다시 로그인해 주십시오.",
    TOKEN_NOT_YET_VALID: "아직 로그인 유효 시간이 되지 않았습니다. 잠시 후 다시 시도하거나 감독관에게 알려 주십시오.",
    REPLACED: "다른 창이나 기기에서 시험이 열려 있습니다.",
    RECONNECT_LIMIT_EXCEEDED: "연결이 오래 끊겨 입장이 제한되었습니다. 감독관에게 재입장을 요청한 후 다시 시도해 주십시오.",
    REMOVED: "감독관이 시험을 종료하였습니다. 감독관에게 문의해 주십시오.",
    FORBIDDEN: "응시자용 로그인이 아닙니다. 응시자로 로그인해 주십시오.",
    CLOSED: "연결이 종료되었습니다. 감독관에게 알려 주십시오.",
    HANDED_IN: "제출이 완료되었습니다.",
    DECIDED: "감독관이 시험을 종료하였습니다.",
    PLAN_ENDED: "시험이 종료되었습니다.",
    EXAM_OVER: "시험이 종료되었습니다.",
    notBegun: "연결되었습니다. 시험이 아직 시작되지 않았습니다.",
    startsIn: "시작까지 {time}",
    left: "{time} 남음",
    grace: "제출 마감까지 {time}",
    timeUp: "연결되었습니다. 시험 시간이 종료되었습니다.",
    soon: "{n}분 남았습니다.",
    askForHelp: "도움 요청",
    helpAsking: "도움을 요청하고 있습니다…",
    helpAsked: "감독관에게 전달되었습니다.",
    helpTaken: "{by} 감독관이 확인하고 있습니다.",
    noHelp: "도움 요청 취소",
  },
};

/** A text with its values. @param {string} lang @param {string} key @param {Record<string, number | string>} [values] */
export function fill(lang, key, values = {}) {
  return (TEXTS[lang] ?? TEXTS.en)[key].replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/**
 * The language of the badge: its own `lang`, that of the page around it, or the browser's.
 * @param {readonly (string | null | undefined)[]} wanted
 */
export function languageOf(wanted) {
  for (const tag of wanted) {
    const main = String(tag ?? "").toLowerCase().split("-")[0];
    if (Object.hasOwn(TEXTS, main)) return main;
  }
  return "en";
}
