export default {
  forward: "Forward",
  where: "Where to",
  forwarded: { one: "Forwarded to {count} conversation.", other: "Forwarded to {count} conversations." },
  history: "What it said before",
  readers: "Who has read it",
  haveRead: "Have read it",
  haveNotRead: "Have not read it yet",
};
