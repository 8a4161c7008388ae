/** The first page in Korean. */
export const texts = {
  title: "examwire",
  language: "언어",
  lead: "실시간 온라인 시험의 연결 상태를 관리합니다.",
  pages: "페이지",
  proctor: "감독관",
  "proctor.what": "전체 응시자의 연결 상태를 한눈에 확인합니다.",
  examinee: "응시자",
  "examinee.what": "본인의 연결 상태와 감독관 메시지를 확인하고 휴대폰으로 사진을 보냅니다.",
  phone: "휴대폰",
  "phone.what": "카메라 사진을 찍어 보냅니다. 응시자 화면에 표시된 코드가 필요합니다.",
  state: "현재 상태",
  "state.asking": "서버 상태를 확인하고 있습니다…",
  "state.servers": { other: "소켓 서버 {n}대가 준비되어 있습니다." },
  "state.none": "준비된 소켓 서버가 없어 지금은 접속할 수 없습니다.",
  "state.unreachable": "서버가 응답하지 않습니다. 네트워크를 확인한 후 페이지를 새로 고쳐 주세요.",
  version: "버전",
};
