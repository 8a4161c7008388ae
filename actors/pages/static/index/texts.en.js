/** The first page in English. */
export const texts = {
  title: "examwire",
  language: "Language",
  lead: "Connections of a live online exam.",
  pages: "Pages",
  proctor: "Proctor",
  "proctor.what": "See all examinees of an exam at a glance: who is connected and who is not.",
  examinee: "Examinee",
  "examinee.what": "See your connection and your messages, and send the picture with your phone.",
  phone: "Phone",
  "phone.what": "Take and send the camera picture. You need the code from the examinee’s screen.",
  state: "Status",
  "state.asking": "Asking the server …",
  "state.servers": { one: "One socket server is ready.", other: "{n} socket servers are ready." },
  "state.none": "No socket server is ready: nobody can connect at the moment.",
  "state.unreachable": "The server does not answer. Check the network and reload the page.",
  version: "Version",
};
