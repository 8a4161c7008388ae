/** The printed and the saved list in English. @type {import("../../../common/i18n.js").Texts} */
export const texts = {
  "list.print": "Print list",
  "list.csv": "Save as CSV",
  "list.means": "The examinees as they are filtered and sorted now",
  "list.count": { one: "{n} of {all} examinees", other: "{n} of {all} examinees" },
  "list.filter": "Filter: {filter}",
  "list.search": "search “{text}”",
  "list.or": " or ",
  "list.behind": "The wall was not up to date.",
  "list.saved": { one: "The list was saved: {n} examinee.", other: "The list was saved: {n} examinees." },
  "list.id": "ID",
  "list.name": "Name",
  "list.state": "State",
  "list.more": "Details",
  "list.marks": "Marks",
};
