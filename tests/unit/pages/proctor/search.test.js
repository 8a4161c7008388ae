import assert from "node:assert/strict";
import { test } from "node:test";

import { folded, searchFor } from "../../../../actors/pages/static/proctor/toolbar/search.js";

/** @param {string} query @param {string} name */
const finds = (query, name) => searchFor(query)?.({ text: folded(name), labels: {} }) ?? true;

test("initial consonants find Korean names, also two in one letter; ids are found that a Korean keyboard has typed", () => {
  for (const [query, name] of [["ㄱㅁㅈ", "김민준"], ["ㅁㅈ", "김민준"], ["ㄱ민", "김민준"], ["김ㅁㅈ", "김민준"], ["ㄱㅁ", "김민준"],
    ["ㄳㅈ", "강수진"], ["ㄱㅅㅈ", "강수진"], ["ㅄ", "박선우"], ["ㄲㄴ", "김꽃님"], ["ㄱㄲ", "김꽃님"], ["ㄲ", "김가람"], ["ㄴㄱㅎㅂ", "남궁한별"],
    ["ㄱㅁㅈ", "김민준".normalize("NFD")], ["ㄷ1", "다1"], ["ㄷ001", "E001"], ["ㄴㅐ차001", "SOCK001"], ["느ㅑ소", "Smith"]]) {
    assert.ok(finds(query, name), `${query} ${name}`);
  }
  for (const [query, name] of [["ㄱㅁㅈ", "김준민"], ["ㄱㅈ", "김민준"], ["ㄱ", "까치"], ["ㅁ", "김"], ["ㅏ", "가람"], ["ㄳ", "강"], ["ㄱㄴ", "Anders"]]) {
    assert.ok(!finds(query, name), `${query} ${name}`);
  }
});

test("every state of a name that a Korean keyboard shows while it is typed finds it", () => {
  /** @type {Record<string, string>} */
  const typed = {
    김민준: "ㄱ 기 김 김ㅁ 김미 김민 김믽 김민주 김민준",
    이민호: "ㅇ 이 임 이미 이민 이믾 이민호",
    곽도경: "ㄱ 고 과 곽 곽ㄷ 곽도 곽독 곽도겨 곽도경",
    최서윤: "ㅊ 초 최 쵯 최서 최성 최서유 최서윤",
    김꽃님: "ㄱ 기 김 김ㄲ 김꼬 김꽃 김꽃ㄴ 김꽃니 김꽃님",
    이쌍수: "이 있 이싸 이쌍 이쌍ㅅ 이쌍수",
    닭이: "ㄷ 다 달 닭 닭ㅇ 닭이",
    원의진: "ㅇ 우 워 원 원ㅇ 원으 원의 원읮 원의지 원의진",
  };
  for (const [name, states] of Object.entries(typed)) {
    for (const state of states.split(" ")) assert.ok(finds(state, `E0001 ${name} 3`), `${state} ${name}`);
  }
});

test("a syllable with a consonant or a space behind it is finished", () => {
  for (const [query, name] of [["임 ", "이민호"], ["이 ", "임민호"], ["기민", "김민준"], ["임 민", "이민호"], ["김밎", "김민준"], ["고 ", "곽"]]) {
    assert.ok(!finds(query, name), `“${query}” ${name}`);
  }
});

test("case, diacritics, quotes, dashes and full-width letters do not matter, on either side", () => {
  for (const [query, name] of [["obrien", "Conor O’Brien"], ["o'brien", "Conor O’Brien"], ["O´BRIEN", "conor o'brien"], ["lukasz", "Łukasz"],
    ["Łukasz", "LUKASZ"], ["soren", "Søren"], ["nguyen dang", "Đặng Nguyễn"], ["weiss", "Weiß"], ["istanbul", "İSTANBUL"],
    ["jose", "Jose\u0301"], ["jean-luc", "Jean‑Luc"], ["e001", "Ｅ００１"], ["Ｅ００１", "e001"], ["aesir", "Æsir"], ["c++ (x)", "C++ (X)"], ["[a", "[A]"]]) {
    assert.ok(finds(query, name), `${query} ${name}`);
  }
  for (const nothing of ["", "  ", "'", "’ "]) assert.equal(searchFor(nothing), null);
});

test("the name of a label and a value find that value, whatever else contains it", () => {
  const labels = new Map([["room", new Map([["1", 2], ["10", 1], ["Aula B", 1]])], ["exam hall", new Map([["2", 1]])]]);
  const names = (/** @type {string} */ name) => (name === "room" ? "고사실" : name);
  const examinees = { E1: { room: "1" }, E10: { room: "10" }, E3: { room: "Aula B" }, E4: { "exam hall": "2" }, E5: {} };
  const found = (/** @type {string} */ query) => Object.entries(examinees)
    .filter(([id, own]) => searchFor(query, labels, names)?.({ text: folded(`${id} ${Object.values(own).join(" ")}`), labels: own }))
    .map(([id]) => id).join(" ");
  /** @type {Record<string, string>} */
  const expected = { "room 1": "E1", "ROOM 10": "E10", "고사실 1": "E1", "1고사실": "E1", "room1": "E1", "room a": "E3", "room aula b": "E3",
    "room": "E1 E10 E3", "exam hall 2": "E4", "room 1 e1": "E1", "room 1 e3": "", "room 7": "", "room ㄱ": "", "1": "E1 E10" };
  for (const [query, ids] of Object.entries(expected)) assert.equal(found(query), ids, query);
});
