// Small parts. Text of others becomes text nodes alone, in elements that are isolated: it is no markup, and turns nothing around.
import { html } from "./vendor.js";
import { many, T } from "./texts.js";

export { html };

// A name on one line, without what is not seen or turns text, and not too long.
export function plain(name) {
	const letters = [...String(name ?? "").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "").replace(/(\p{M}{2})\p{M}+/gu, "$1").trim()];
	return letters.length > 64 ? letters.slice(0, 63).join("") + "…" : letters.join("") || "?";
}
// Control characters as the signs for them.
export const visible = (text) =>
	String(text ?? "").replace(/[\0-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt())).replace(/[\x7f-\x9f]/g, "␡");

export const Name = ({ of, tag }) => html`<bdi class="name">${plain(of)}</bdi>${tag && html`<span class="tag">${tag}</span>`}`;
// A text of ours with a name in the middle.
export const Around = ({ parts: [before, name, after] }) => html`${before}<${Name} of=${name} />${after}`;

const ROUND = "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z", SHIELD = "M8 1.5l5.5 2v4c0 3.5-2.3 5.9-5.5 7-3.2-1.1-5.5-3.5-5.5-7v-4z";
const PATHS = {
	queued: ROUND + "M8 5v3l2 1.5",
	left: "M2.5 8.5L6 12l7.5-8",
	delivered: "M1 8.5L4.5 12 11 4M7.5 11l1 1L15 4",
	waiting: "M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 1.5v3h-3",
	expired: ROUND + "M8 5v3.5M8 11v.3",
	back: "M10 2.5L4.5 8l5.5 5.5",
	close: "M3.5 3.5l9 9M12.5 3.5l-9 9",
	pen: "M2.5 13.5l.7-3L11 2.7 13.3 5l-7.8 7.8z",
	gear: "M2 4.5h7M12.5 4.5H14M2 11.5h1.5M7 11.5h7M11 2.5v4M5 9.5v4",
	search: "M7 2a5 5 0 1 0 0 10A5 5 0 0 0 7 2zM10.8 10.8L14 14",
	send: "M8 13V3M3.5 7.5L8 3l4.5 4.5",
	down: "M8 3v10M3.5 8.5L8 13l4.5-4.5",
	shield: SHIELD + "M5.5 8l2 2 3-3.5",
	weak: SHIELD + "M8 5v3.5M8 10.5v.3",
	off: SHIELD + "M2 2l12 12",
	people: "M8 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2.5 14c0-3 2.5-5 5.5-5s5.5 2 5.5 5",
	alarm: "M8 2L15 14H1zM8 6.5V10M8 12v.2",
};
export const Icon = ({ of, label }) => html`<svg class="icon" viewBox="0 0 16 16" role="img" aria-label=${label} aria-hidden=${!label}><path d=${PATHS[of] || PATHS.queued} /></svg>`;
export const Round = ({ icon, label, kind = "", ...rest }) => html`<button class=${`round ${kind}`} aria-label=${label} title=${label} ...${rest}><${Icon} of=${icon} /></button>`;
export const Strip = ({ kind = "", icon, role, children }) => html`<div class=${`strip ${kind}`} role=${role}>${icon && html`<${Icon} of=${icon} />`}${children}</div>`;

export function Avatar({ of: { name, person, group }, kind = "" }) {
	const hue = (group ? parseInt(group.slice(0, 4), 16) : person) * 67;
	const words = plain(name).match(/[\p{L}\p{N}]+/gu) || ["?"], first = (word) => [...word][0];
	return html`<span class=${`avatar ${kind}`} style=${{ background: `hsl(${hue} 40% 35%)` }} aria-hidden="true"><bdi>${first(words[0])}${words[1] && first(words.at(-1))}</bdi></span>`;
}

// A line of a list: who, when, and what stands below.
export const Row = ({ of, time, tag, now, onClick, children }) => html`<li><button class="row" aria-current=${now} onClick=${onClick}><${Avatar} of=${of} />
	<span class="lines"><span class="line"><${Name} of=${of.name} tag=${tag} />${time && html`<time class="dim">${brief(time)}</time>`}</span>${children}</span></button></li>`;

// Times, in the browser's own language.
const at = (s) => new Date(Math.min(Math.max(s || 0, 0), 8e12) * 1000);
const format = (s, options) => at(s).toLocaleString(undefined, options);
const daysAgo = (s) => Math.round((new Date().setHours(0, 0, 0, 0) - at(s).setHours(0, 0, 0, 0)) / 864e5);
export const dayOf = (s) => at(s).toDateString();
export const hour = (s) => format(s, { hour: "2-digit", minute: "2-digit" });
export const long = (s) => (daysAgo(s) ? format(s, { dateStyle: "medium", timeStyle: "short" }) : hour(s));
export function day(s, month = "long") {
	const ago = daysAgo(s);
	if (ago === 0 || ago === 1) return ago ? T.yesterday : T.today;
	return format(s, ago > 1 && ago < 7 ? { weekday: "long" } : { day: "numeric", month, year: at(s).getFullYear() === new Date().getFullYear() ? undefined : "numeric" });
}
// For how long something is kept.
export function span(s) {
	const [n, what] = s % 86400 ? (s % 3600 ? [s, "second"] : [s / 3600, "hour"]) : [s / 86400, "day"];
	return s ? many(n, what) : "";
}
const brief = (s) => (daysAgo(s) ? day(s, "short") : hour(s));

// Says something to those who listen to the page.
export function say(text) {
	const live = document.getElementById("live");
	live.textContent = "";
	setTimeout(() => (live.textContent = visible(text).slice(0, 500)), 50);
}

export function notifies() {
	const may = window.Notification?.permission || "denied";
	return may === "denied" ? may : may === "granted" && localStorage.notify ? "on" : "off";
}
// Whoever sees the screen sees these: they say that something came, and nothing of it.
export function notify(body) {
	if (notifies() !== "on" || document.hasFocus()) return;
	new Notification(T.shoal, { body, tag: "shoal", icon: "/icon.svg" }).onclick = () => window.focus();
}
