/** The first page in English. */
export const texts = {
  title: "examwire",
  language: "Language",
  lead: "The connections of a live online exam.",
  pages: "Pages",
  proctor: "Proctor",
  "proctor.what": "Everybody of a plan at a glance: who is connected, who is lost.",
  examinee: "Examinee",
  "examinee.what": "Your own connection, messages, and the picture by phone.",
  phone: "Phone",
  "phone.what": "Send the camera picture, with the code on the examinee's screen.",
  state: "Now",
  "state.asking": "Asking the server …",
  "state.servers": { one: "One socket server is ready.", other: "{n} socket servers are ready." },
  "state.none": "No socket server is ready: nobody can connect now.",
  "state.unreachable": "The server does not answer. Check the network and reload the page.",
  version: "Version",
};
