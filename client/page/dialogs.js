// Dialogs that are loaded when they are wanted: what to do with a message, and how two people tell that nobody stands between them,
// whose codes for cameras take more than all the rest.
import { close, Dialog, stateOf, textOf } from "./chat.js";
import { Around, html, Icon, long, Strip } from "./parts.js";
import decodeQR from "./qr/decode.js";
import encodeQR from "./qr/index.js";
import * as store from "./store.js";
import { S } from "./store.js";
import { T } from "./texts.js";
import { useEffect, useMemo, useRef, useState } from "./vendor.js";

const MARK = "SHOAL:", LOOK = 150; // Before the digits in a code; milliseconds between two looks of the camera.
const codeOf = (digits) => MARK + digits.replace(/\D/g, "");

function Code({ digits }) {
	const rows = useMemo(() => encodeQR(codeOf(digits), "raw", { ecc: "medium" }), [digits]);
	const path = rows.map((row, y) => row.map((is, x) => (is ? `M${x} ${y}h1v1h-1z` : "")).join("")).join("");
	return html`<svg class="qr" viewBox=${`0 0 ${rows.length} ${rows.length}`} role="img" aria-label=${T.qr} shape-rendering="crispEdges"><path d=${path} /></svg>`;
}

function found(picture) {
	try {
		return decodeQR(picture);
	} catch {
		return null; // There is none in it.
	}
}

// Says each code that the camera sees; `onEnd` says that no camera can be used.
function Camera({ onCode, onEnd }) {
	const video = useRef();
	useEffect(() => {
		const canvas = document.createElement("canvas"), picture = canvas.getContext("2d", { willReadFrequently: true });
		let stream, timer, isOver = false;
		const stop = () => stream?.getTracks().forEach((track) => track.stop());
		function look() {
			const { videoWidth: width, videoHeight: height } = video.current;
			if (width) {
				Object.assign(canvas, { width, height });
				picture.drawImage(video.current, 0, 0);
				const text = found(picture.getImageData(0, 0, width, height));
				if (text) onCode(text);
			}
			if (!isOver) timer = setTimeout(look, LOOK);
		}
		const asked = navigator.mediaDevices?.getUserMedia({ video: { facingMode: "environment" } }) ?? Promise.reject();
		asked.then(
			(given) => {
				stream = given;
				if (isOver) return stop();
				video.current.srcObject = given;
				video.current.play().catch(() => {});
				look();
			},
			() => isOver || onEnd(),
		);
		return () => ((isOver = true), clearTimeout(timer), stop());
	}, []);
	return html`<video ref=${video} muted playsinline aria-label=${T.camera}></video>`;
}

export function Details({ m }) {
	const now = S.messages.get(m.person)?.list.find((other) => other.number === m.number) || m;
	const [text, setText] = useState(null), [error, setError] = useState(""), field = useRef();
	const act = (asked) => asked.then(close, ({ message }) => setError(`${T.failed}: ${message}`));
	useEffect(() => field.current?.focus(), [text === null]);
	const times = [[T.written, now.sent_at], [T.came, now.came_at], [T.erased, now.expires_at]].filter(([, s]) => s);
	return html`<${Dialog} title=${T.details}><blockquote dir="auto">${textOf(now).slice(0, 300)}</blockquote>
		<dl>${times.map(([what, s]) => html`<dt>${what}</dt><dd>${long(s)}</dd>`)}${now.own && html`<dt>${T.state}</dt><dd><${Icon} of=${now.state} /> ${stateOf(now)}<p class="dim">${now.why || T.hints[now.state]}</p></dd>`}</dl>
		${now.own && html`<p class="dim">${T.byDesign}</p>`}
		${text !== null && html`<textarea ref=${field} rows="4" maxlength="15000" dir="auto" value=${text} aria-label=${T.edit} onInput=${(e) => setText(e.target.value)}></textarea>`}
		${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		<p class="acts">${now.own && now.text && (text === null ? html`<button class="quiet" onClick=${() => setText(now.text)}>${T.edit}</button>`
			: html`<button class="primary" disabled=${!text.trim()} onClick=${() => act(store.edit(now, text))}>${T.save}</button>`)}
			${now.own && html`<button class="quiet bad" onClick=${() => act(store.remove(now, true))}>${T.removeAll}</button>`}<button class="quiet bad" onClick=${() => act(store.remove(now))}>${T.remove}</button></p>
		<p class="dim small">${now.own ? T.changeHint : T.removeHint}</p><//>`;
}

export function Verify({ person }) {
	const [answer, setAnswer] = useState({}), [scans, setScans] = useState(false), [seen, setSeen] = useState(null);
	// What was compared goes with it: a device may have come meanwhile.
	const ask = (same) => store.verify(person, same, answer.digits).then(setAnswer, ({ message }) => setAnswer((before) => ({ ...before, error: message })));
	const isGone = store.isGone(person), name = store.nameOf(person);
	const { digits, verified, error } = isGone ? { error: T.gone } : answer;
	useEffect(() => void ask(), []);
	const onCode = (text) => {
		const is = text === codeOf(digits) ? "same" : text.startsWith(MARK) ? "other" : "none";
		setSeen(is);
		if (is === "none") return;
		setScans(false);
		ask(is === "same");
	};
	const notes = { none: T.noCode, camera: T.noCamera };
	return html`<${Dialog} title=${T.digits}>${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		${seen === "other" && !isGone && html`<${Strip} kind="bad" icon="alarm" role="alert"><p><${Around} parts=${T.otherCode(name)} /></p><//>`}
		${digits && html`<p><${Around} parts=${T.compare(name)} /></p>
			<ol class="digits">${digits.split(" ").map((group) => html`<li aria-label=${[...group].join(" ")}>${group}</li>`)}</ol>
			${notes[seen] && html`<${Strip} kind="warn" role="alert">${notes[seen]}<//>`}
			${verified ? html`<${Strip} kind="good" icon="shield" role="status">${T.compared}<//>` : html`<p class="dim">${T.differ}</p>`}
			<p class="acts"><button class=${verified ? "quiet" : "primary"} onClick=${() => (setSeen(null), ask(!verified))}>${verified ? T.unmark : T.same}</button>
				<button class="quiet" onClick=${() => (setSeen(null), setScans(!scans))}>${scans ? T.endScan : T.scan}</button></p>
			${scans ? html`<p class="dim"><${Around} parts=${T.scanning(name)} /></p><${Camera} onCode=${onCode} onEnd=${() => (setScans(false), setSeen("camera"))} />` : html`<${Code} digits=${digits} />`}`}<//>`;
}
