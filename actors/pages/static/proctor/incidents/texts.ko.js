/** Who needs attention, in Korean. @type {import("../../common/i18n.js").Texts} */
export const texts = {
  "attention.elsewhere": "다른 시험 {n}명",
  "attention.hidden": "확인이 필요한 응시자 {n}명이 숨겨져 있습니다",
  "attention.together": "함께 끊긴 응시자 {n}명은 위의 집단 장애에 모아 두었습니다",
  "attention.show": "보기",
  "attention.below": "아래에 {n}명",
  "attention.emptied": "조건에 맞는 응시자가 더 없어 전체를 표시합니다.",
};
