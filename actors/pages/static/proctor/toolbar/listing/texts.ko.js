/** The printed and the saved list in Korean. @type {import("../../../common/i18n.js").Texts} */
export const texts = {
  "list.print": "목록 인쇄",
  "list.csv": "CSV로 저장",
  "list.means": "지금 화면의 필터와 정렬에 따른 응시자 목록",
  "list.count": { other: "전체 {all}명 중 {n}명" },
  "list.filter": "필터: {filter}",
  "list.search": "검색어 “{text}”",
  "list.or": " 또는 ",
  "list.behind": "최신 상태가 아닐 때 만든 목록입니다.",
  "list.saved": { other: "응시자 {n}명의 목록을 저장했습니다." },
  "list.id": "수험번호",
  "list.name": "이름",
  "list.state": "상태",
  "list.more": "상세",
  "list.marks": "확인 사항",
};
