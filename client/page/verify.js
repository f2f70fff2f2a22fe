// How two people tell that nobody stands between them. The codes for cameras take more than all the rest of the page.
import { Dialog } from "./chat.js";
import { Around, html, Strip } from "./parts.js";
import decodeQR from "./qr/decode.js";
import encodeQR from "./qr/index.js";
import * as store from "./store.js";
import { L } from "./texts-later.js";
import { T } from "./texts.js";
import { useEffect, useMemo, useRef, useState } from "./vendor.js";

const MARK = "SHOAL:", LOOK = 150; // Before the digits in a code; milliseconds between two looks of the camera.
const codeOf = (digits) => MARK + digits.replace(/\D/g, "");

function Code({ digits }) {
	const rows = useMemo(() => encodeQR(codeOf(digits), "raw", { ecc: "medium" }), [digits]);
	const path = rows.map((row, y) => row.map((is, x) => (is ? `M${x} ${y}h1v1h-1z` : "")).join("")).join("");
	return html`<svg class="qr" viewBox=${`0 0 ${rows.length} ${rows.length}`} role="img" aria-label=${L.qr} shape-rendering="crispEdges"><path d=${path} /></svg>`;
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
	return html`<video ref=${video} muted playsinline aria-label=${L.camera}></video>`;
}

export function Verify({ of: person }) {
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
	const notes = { none: L.noCode, camera: L.noCamera };
	return html`<${Dialog} title=${L.digits}>${error && html`<${Strip} kind="bad" role="alert">${error}<//>`}
		${seen === "other" && !isGone && html`<${Strip} kind="bad" icon="alarm" role="alert"><p><${Around} parts=${L.otherCode(name)} /></p><//>`}
		${digits && html`<p><${Around} parts=${L.compare(name)} /></p>
			<ol class="digits">${digits.split(" ").map((group) => html`<li aria-label=${[...group].join(" ")}>${group}</li>`)}</ol>
			${notes[seen] && html`<${Strip} kind="warn" role="alert">${notes[seen]}<//>`}
			${verified ? html`<${Strip} kind="good" icon="shield" role="status">${L.compared}<//>` : html`<p class="dim">${L.differ}</p>`}
			<p class="acts"><button class=${verified ? "quiet" : "primary"} onClick=${() => (setSeen(null), ask(!verified))}>${verified ? L.unmark : L.same}</button>
				<button class="quiet" onClick=${() => (setSeen(null), setScans(!scans))}>${scans ? L.endScan : L.scan}</button></p>
			${scans ? html`<p class="dim"><${Around} parts=${L.scanning(name)} /></p><${Camera} onCode=${onCode} onEnd=${() => (setScans(false), setSeen("camera"))} />` : html`<${Code} digits=${digits} />`}`}<//>`;
}
