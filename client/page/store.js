// What the page knows and does. Whoever changes it calls `changed`, and the page is drawn anew.
import { ask, enter, listen, start } from "./net.js";
import { notify, say } from "./parts.js";
import { T } from "./texts.js";

const PROTOCOL = 3, PAGE = 40;

export const S = {
	link: "connecting", note: "", ready: false, status: null, org: {}, toast: null,
	contacts: new Map(), known: new Map(), talks: new Map(), verified: new Map(), messages: new Map(), drafts: new Map(), missed: new Map(), dismissed: new Set(),
	open: null, panel: null, search: "", found: null,
};

let draw, scheduled;
let early; // Events before all else is known.
export function changed() {
	if (!scheduled) queueMicrotask(() => ((scheduled = false), draw()));
	scheduled = true;
}
export const set = (fields) => (Object.assign(S, fields), changed());
export const panel = (panel) => set({ panel });

export const me = () => [...S.contacts.values()].find((contact) => contact.own);
export const isMember = () => !!S.org.member;
// Whom the organisation has removed.
export const isGone = (person) => isMember() && !S.contacts.has(person);
export const tag = (person) => (isGone(person) ? T.former : S.contacts.get(person)?.external && T.external);
export const nameOf = (person) => (S.known.get(person) || S.talks.get(person))?.name || "";
export const unread = () => [...S.talks.values()].reduce((sum, c) => sum + c.unread, 0);
export const sorted = () => [...S.talks.values()].sort((a, b) => (b.last?.number || 0) - (a.last?.number || 0));

export const fail = ({ message }) => set({ toast: `${T.failed}: ${message}` });

export function begin(drawing) {
	draw = drawing;
	start({
		event,
		state: (link, note) => set({ link, note }),
		open(protocol) {
			if (protocol !== PROTOCOL) return set({ link: "locked", note: T.otherVersion });
			set({ link: "open" });
			load().catch(fail);
		},
	});
	setInterval(() => S.link === "open" && status(), 15000);
}

async function load() {
	early = [];
	listen();
	await Promise.all([organisation(), people(), conversations(), status()]);
	const events = early;
	early = null;
	events.forEach(event);
	S.messages.clear();
	set({ ready: true });
	if (S.open !== null) latest(S.open);
}
const organisation = async (fields) => set({ org: await ask("organisation", fields) });
const status = () => ask("status").then((status) => set({ status }), () => {});
const byPerson = (list) => new Map(list.map((of) => [of.person, of]));
async function people() {
	const contacts = byPerson((await ask("contacts")).contacts);
	// Who goes keeps his name.
	set({ contacts, known: new Map([...S.known, ...contacts]) });
}
async function conversations() {
	const talks = byPerson((await ask("conversations")).conversations);
	talks.forEach((c) => S.verified.set(c.person, c.verified));
	set({ talks });
}

// Asks once for what several events changed.
const later = new Map();
function soon(what) {
	clearTimeout(later.get(what));
	later.set(what, setTimeout(() => what().catch(fail), 200));
}

function event(e) {
	const { person, number } = e;
	if (early) return early.push(e);
	if (e.event === "received" || e.event === "sent") return arrived(e);
	if (e.event === "state") return change(person, number, (m) => ({ ...m, state: e.state, why: e.why, next_try: e.next_try }));
	if (e.event === "changed") return again(person, number).catch(fail);
	if (e.event === "missed") return S.missed.set(person, (S.missed.get(person) || 0) + e.parts), changed();
	if (e.event === "connected") return status();
	if (e.event === "alarm" || e.event === "announcement") {
		say(`${T[e.event]}: ${e.text}`);
		notify(T[e.event]);
	}
	soon(organisation);
	soon(people);
}

function arrived(m) {
	const { person, number, name } = m;
	const c = S.talks.get(person) || { person, name, unread: 0 };
	// What was known already comes again where no program took it.
	const isNew = number > (c.last?.number || 0), isUnread = isNew && !m.own && !m.read;
	if (isNew) c.last = m;
	if (isUnread) c.unread += 1;
	S.talks.set(person, c);
	const held = S.messages.get(person);
	if (isNew && held?.isLatest) held.list = [...held.list, m];
	changed();
	if (!isUnread) return;
	if (S.open === person && isLooking()) {
		say(`${name}: ${m.text}`);
		read(person);
	} else {
		say(`${T.newMessage}: ${name}`);
		notify(T.newMessage);
	}
}

function change(person, number, how) {
	const held = S.messages.get(person), c = S.talks.get(person);
	if (held) held.list = held.list.map((m) => (m.number === number ? how(m) : m)).filter(Boolean);
	if (c?.last?.number === number) c.last = how(c.last);
	changed();
}
async function again(person, number) {
	const { messages } = await ask("messages", { number });
	change(person, number, () => messages[0]);
	soon(conversations);
}

const isLooking = () => document.visibilityState === "visible" && document.hasFocus();

// What came from a person counts as read when it is on the screen.
export function read(person) {
	const c = S.talks.get(person), held = S.messages.get(person), last = held && Math.max(...held.list.map((m) => (m.own ? 0 : m.number)));
	if (S.open !== person || !c?.unread || !held?.isLatest || !last || !isLooking()) return;
	c.unread = 0;
	changed();
	ask("read", { person, up_to: last }).catch(fail);
}

async function fetch(person, fields, join) {
	try {
		const { messages } = await ask("messages", { person, last: PAGE, ...fields });
		const held = S.messages.get(person) || { list: [] };
		S.messages.set(person, { ...held, hasMore: messages.length >= PAGE, ...join(messages, held) });
		changed();
		read(person);
	} catch (error) {
		fail(error);
	}
}
export const latest = (person) => fetch(person, {}, (list) => ({ list, isLatest: true, mark: null }));
export const earlier = (person) => fetch(person, { before: S.messages.get(person).list[0].number }, (list, held) => ({ list: [...list, ...held.list] }));

const show = (person) => set({ open: person, panel: null, search: "", found: null });
export function open(person) {
	show(person);
	if (person === null) return;
	// Conversations say it of those with whom there are messages.
	if (!S.verified.has(person)) verify(person).catch(() => {});
	if (S.messages.get(person)?.isLatest) read(person);
	else latest(person);
}
// Opens a conversation where a message is, with some that came after it.
export function openAt({ person, number }) {
	show(person);
	fetch(person, { before: number + 20 }, (list) => ({ list, mark: number, isLatest: list.at(-1)?.number >= S.talks.get(person)?.last?.number }));
}

let searching;
export function search(text) {
	set({ search: text, found: null });
	clearTimeout(searching);
	const wanted = text.trim(), find = () => ask("search", { text: wanted }).catch(({ message }) => ({ error: message }));
	if (wanted) searching = setTimeout(() => find().then((found) => S.search === text && set({ found })), 300);
}

export const send = (person, text) => ask("send", { person, text });
export const edit = ({ number }, text) => ask("edit", { number, text });
export async function remove({ person, number }, for_all) {
	await ask("delete", { number, for_all });
	change(person, number, () => null);
	soon(conversations);
}
export async function verify(person, same, digits) {
	const said = await ask("verify", { person, same, digits });
	S.verified.set(person, said.verified);
	changed();
	return said;
}
export const seen = () => organisation({ seen: true }).then(() => organisation()).catch(fail);
export const join = (fields) => ask("join", fields).then(() => organisation());
export { enter };
