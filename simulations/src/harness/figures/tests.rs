#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use shoal_topology::Time;

use super::*;

fn estimate(value: f64) -> Estimate {
    Estimate { value, low: value * 0.9, high: value * 1.1 }
}

fn record(caller: u32, callee: u32, start_s: u64, duration_s: f64) -> Record {
    Record { caller, callee, start: Time::from_secs(start_s), duration_s }
}

fn all() -> Vec<(&'static str, Figure)> {
    let curve = |name: &str, factor: f64| Curve {
        name: name.into(),
        points: [1.0, 10.0, 100.0, 1e4].map(|x| (x, estimate(factor * f64::ln(x + 1.0)))).into(),
    };
    let bar = |score, prior| Some(Bar { score: estimate(score), prior });
    let calls =
        vec![record(1, 9, 600, 300.0), record(4, 2, 3_000, 1_200.0), record(7, 3, 6_000, 0.0)];
    vec![
        (
            "entropy",
            Figure::Curves {
                title: "Sender entropy against traffic".into(),
                x: "packets per second".into(),
                scale: Scale::Logarithmic,
                y: "sender entropy, bits".into(),
                curves: vec![curve("text", 1.0), curve("call", 1.5)],
            },
        ),
        (
            "latency",
            Figure::Distribution {
                title: "Latency".into(),
                x: "latency, seconds".into(),
                values: (1..5_000).map(|n| -f64::ln(f64::from(n) / 5_000.0)).collect(),
                theory: Some((
                    "Erlang(1, 1/s)".into(),
                    (0..100)
                        .map(|n| (f64::from(n) / 10.0, 1.0 - f64::exp(-f64::from(n) / 10.0)))
                        .collect(),
                )),
            },
        ),
        (
            "scoreboard",
            Figure::Scoreboard {
                title: "What attacks find".into(),
                y: "average precision".into(),
                attacks: vec!["timing".into(), "disclosure".into()],
                systems: vec![
                    ("telecom".into(), vec![bar(0.9, 0.01), bar(0.8, 0.01)]),
                    ("Shoal".into(), vec![bar(0.011, 0.01), None]),
                ],
            },
        ),
        (
            "timeline",
            Figure::Timeline {
                title: "Calls".into(),
                people: 12,
                begin_s: 0.0,
                end_s: 7_200.0,
                reconstructed: vec![calls[0], record(4, 3, 3_000, 900.0)],
                truth: Truth { records: calls },
            },
        ),
    ]
}

#[test]
fn every_figure_is_drawn_as_svg_and_as_png_with_its_labels() {
    let dir = std::env::var_os("FIGURES").map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = dir.as_deref().unwrap_or(temporary.path());
    let labels = [
        ("entropy", "sender entropy, bits"),
        ("latency", "latency, seconds"),
        ("scoreboard", "guess by the prior alone"),
        ("timeline", "reconstructed: 2 records, 1 of them right"),
    ];
    for ((name, figure), (_, label)) in all().into_iter().zip(labels) {
        let [svg, png] = figure.save(dir, name).unwrap();
        let text = std::fs::read_to_string(dir.join(svg)).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{name}");
        assert!(text.contains(label), "{name} has no {label:?}");
        let image = std::fs::read(dir.join(png)).unwrap();
        assert_eq!(image[..4], *b"\x89PNG", "{name}");
        assert!(image.len() > 5_000, "{name} is nearly empty");
    }
    let left = std::fs::read_dir(dir).unwrap().filter_map(Result::ok);
    let parts = left.filter(|file| file.file_name().to_string_lossy().starts_with('.')).count();
    assert_eq!(parts, 0, "unfinished files stay behind");
}

#[test]
fn the_font_is_built_in() {
    assert!(
        plotters::style::register_font("again", FontStyle::Normal, dejavu::sans::regular()).is_ok()
    );
}

#[test]
fn the_same_figure_is_the_same_bytes() {
    for ((name, one), (_, other)) in all().into_iter().zip(all()) {
        assert_eq!(one.svg().unwrap(), other.svg().unwrap(), "{name}");
    }
}

#[test]
fn a_figure_of_nothing_is_refused() {
    let nothing = Figure::Distribution {
        title: "Nothing".into(),
        x: "s".into(),
        values: vec![f64::NAN],
        theory: None,
    };
    assert!(nothing.svg().is_err());
}
