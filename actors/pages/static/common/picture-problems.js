/**
 * Why a file cannot be sent as a picture (`PictureProblem` of `mobile/picture.js`), and what to do, in both languages.
 */

import { useTexts } from "./i18n.js";

useTexts({
  en: {
    "picture.problem.IMAGE_TOO_LARGE": "This picture is too large.",
    "picture.problem.IMAGE_TOO_LARGE.do": "Take a new one, or choose a smaller one.",
    "picture.problem.IMAGE_DAMAGED": "This picture is damaged or not complete.",
    "picture.problem.IMAGE_DAMAGED.do": "Take a new one, or choose another one. If it is still being loaded from a cloud, wait until that is done.",
    "picture.problem.HEIC": "This is a HEIC picture, which this browser cannot read.",
    "picture.problem.HEIC.live": "Take a new one below, or choose a JPEG or PNG.",
    "picture.problem.HEIC.do": "Take a new one on this page, or choose a JPEG or PNG. To make your phone’s own camera take JPEG: on an iPhone, choose Settings › Camera › Formats › Most Compatible. On a Galaxy, turn off High efficiency pictures in the camera’s settings.",
    "picture.problem.IMAGE_NOT_SUPPORTED": "This browser cannot read pictures of this format.",
    "picture.problem.IMAGE_NOT_SUPPORTED.do": "Take a new one, or choose a JPEG or PNG.",
    "picture.problem.NOT_AN_IMAGE": "This file is not a picture.",
    "picture.problem.NOT_AN_IMAGE.do": "Take a picture, or choose a photo (JPEG or PNG).",
  },
  ko: {
    "picture.problem.IMAGE_TOO_LARGE": "사진이 너무 큽니다.",
    "picture.problem.IMAGE_TOO_LARGE.do": "사진을 새로 찍거나 더 작은 사진을 선택해 주세요.",
    "picture.problem.IMAGE_DAMAGED": "사진이 손상되었거나 일부가 빠져 있습니다.",
    "picture.problem.IMAGE_DAMAGED.do": "사진을 새로 찍거나 다른 사진을 선택해 주세요. 클라우드에서 내려받는 중이라면 끝난 뒤에 다시 선택해 주세요.",
    "picture.problem.HEIC": "이 브라우저에서 열 수 없는 HEIC 형식의 사진입니다.",
    "picture.problem.HEIC.live": "아래에서 새로 찍거나 JPEG 또는 PNG 사진을 선택해 주세요.",
    "picture.problem.HEIC.do": "이 페이지에서 새로 찍거나 JPEG 또는 PNG 사진을 선택해 주세요. 휴대폰 카메라로 JPEG 사진을 찍으려면, iPhone은 설정 › 카메라 › 포맷에서 ‘높은 호환성’을 선택하고, 갤럭시는 카메라 설정에서 ‘고효율 사진’을 꺼 주세요.",
    "picture.problem.IMAGE_NOT_SUPPORTED": "이 브라우저에서 열 수 없는 형식의 사진입니다.",
    "picture.problem.IMAGE_NOT_SUPPORTED.do": "사진을 새로 찍거나 JPEG 또는 PNG 사진을 선택해 주세요.",
    "picture.problem.NOT_AN_IMAGE": "사진 파일이 아닙니다.",
    "picture.problem.NOT_AN_IMAGE.do": "사진을 찍거나 JPEG 또는 PNG 사진을 선택해 주세요.",
  },
});

/**
 * Return the key of the text that says what is wrong; with ".do" behind it, of the text that says what to do, and with ".live"
 * of a shorter one, if there is one, for when the page shows the camera.
 * @param {import("../mobile/picture.js").PictureProblem} problem
 */
export function problemKey(problem) {
  return `picture.problem.${problem}`;
}
