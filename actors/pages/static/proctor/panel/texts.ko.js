/** The panel of an examinee in Korean: what was added to its texts of the wall. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  needed: "필요한 조치",
  "act.needed.exhausted": "재입장을 허용해야 이 응시자가 다시 접속할 수 있습니다.",
  "act.needed.syncFailed": "휴대폰 사진이 없습니다. 시간을 연장하면 응시자가 사진을 보낼 수 있습니다.",
  browser: "{browser} ({system})",
  "outages.gap": "{begin}부터 {end}까지의 기록이 없습니다. 이전 사본에서 복원했거나 기록의 끝부분이 손실된 경우입니다. 이 시간의 끊김과 기록은 여기에 표시되지 않습니다.",
};
