/** The toolbar of the wall, in Korean. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  "sound.on": "알림 켜짐",
  "sound.off": "알림 꺼짐",
  "sound.blocked": "한 번 클릭하면 알림음이 켜집니다",
  "sound.blocked.means": "브라우저는 페이지를 클릭하거나 키를 누른 뒤에만 소리를 재생합니다.",
  "sound.key": "알림음과 탭 제목의 숫자 켜기/끄기 (m)",
  "sound.try": "알림음 들어 보기",
};
