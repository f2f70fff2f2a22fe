#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::super::recorded::Recorded;
use super::What;

fn read(text: &str) -> Recorded {
    Recorded::parse(text, "a.csv").unwrap()
}

fn error(text: &str) -> String {
    Recorded::parse(text, "a.csv").unwrap_err().to_string()
}

/// Three messages in whatever form are these.
fn three(text: &str) {
    let (read, plain) = (read(text), read("0,5,6\n1.5,6,7\n2,7,5\n"));
    assert_eq!((read.ids, read.entries), (plain.ids, plain.entries), "{text:?}");
}

#[test]
fn the_first_row_counts_whatever_stands_before_it() {
    three("\u{feff}0,5,6\n1.5,6,7\n2,7,5\n");
    three("\u{feff}time,from,to\r\n0,5,6\r\n1.5,6,7\r\n2,7,5");
    three("sep=;\n0;5;6\n1.5;6;7\n2;7;5");
    three("# calls of May\n\n0,5,6\n1.5,6,7\n2,7,5");
}

#[test]
fn a_first_line_that_is_neither_row_nor_header_is_refused() {
    for text in ["NA,5,6\n1,6,7\n", "x,y,z\n1,6,7\n", ",5,6\n1,6,7", "inf,5,6", "01/02/2024,5,6"] {
        let why = error(text);
        assert!(why.starts_with("a.csv, line 1: the time must be 0 to"), "{why}");
        assert!(
            why.contains("if this line is a header, it must name the columns time, from, to"),
            "{why}"
        );
    }
}

#[test]
fn separators_and_quotes_are_those_of_the_file() {
    three("0;5;6\n1.5;6;7\n2;7;5");
    three("0\t5\t6\n1.5\t6\t7\n2\t7\t5");
    three("\"0\",\"5\",\"6\"\n1.5, \"6\" ,7\n2,7,\"5\"\n");
    let quoted = read("time,from,to\n1,\"Smith, \"\"A\"\"\",\"Jones\"\n");
    assert_eq!(quoted.ids, ["Jones", "Smith, \"A\""]);
    assert!(error("0,5;3;4;1,5").contains("a point in decimals"), "{}", error("0,5;3;4;1,5"));
    assert!(error("0;5;6\n1,5;6;7").contains("line 2: the time must be"));
    assert!(error("1,2,\"3\n4,5,6").contains("line 1: a quoted cell must end in the same line"));
    assert!(error("1,2,\"3\"4").contains("after a quoted cell"));
    assert!(error("0,5,6\r1,6,7\r").contains("carriage return"));
}

#[test]
fn columns_are_taken_by_name_in_any_order() {
    three("from,to,time\n5,6,0\n6,7,1.5\n7,5,2");
    three(",time,from,to\n0,0,5,6\n1,1.5,6,7\n2,2,7,5");
    three("Time [ms],Sender,Recipient\n0,5,6\n1500,6,7\n2000,7,5");
    let calls = read("user_a,user_b,timestamp,duration\n300,301,184,121\n");
    assert_eq!(calls.entries[0].what, What::Call(121.0));
    assert_eq!(calls.entries[0].at.as_secs_f64(), 184.0);
    let fifth = read("time,from,to,duration,city\n1,2,3,4,Rome\n");
    assert_eq!(fifth.entries[0].what, What::Call(4.0));
    assert_eq!(fifth.notes, ["not used of the file: city"]);
}

#[test]
fn columns_that_are_unknown_or_missing_are_named_with_what_is_allowed() {
    let flag = error("timestamp,user_a,user_b,sms\n1,2,3,1\n");
    assert!(
        flag.starts_with(
            "a.csv, line 1: the column \"sms\" is not known; allowed are time, from, to"
        ),
        "{flag}"
    );
    let missing = error("time,from,number\n1,2,3");
    assert!(
        missing.contains("no column to, it has \"time\", \"from\", \"number\"; allowed are"),
        "{missing}"
    );
    assert!(error("date,time,from,to\n").contains("both give the time: keep one"));
    assert!(error("1,2,3,4,5").contains("its first line must name the columns"));
    assert!(
        error("time,from,to\n1,2,3,9\n")
            .contains("line 2: there are 4 cells, and 3 columns in the header")
    );
}

#[test]
fn times_have_one_form_and_one_unit() {
    let hour = 3_600.0;
    let first = |text: &str| read(text).entries[0].at.as_secs_f64();
    assert_eq!(first("1970-01-02T01:00:00Z,a,b"), 25.0 * hour);
    assert_eq!(first("1714564800000,a,b\n1714564801000,b,a"), 1_714_564_800.0);
    assert_eq!(read("1714564800000,1,2").notes, ["times are read as milliseconds since 1970"]);
    assert_eq!(read("2024-05-01 12:00,1,2").notes, ["dates without a time zone are read as UTC"]);
    assert!(
        error("1,2,3\n1970-01-02,2,3").contains("line 2: the time has another form than in line 1")
    );
    assert!(
        error("2024-05-01,2,3\n2024-05-01T00:00:00Z,2,3").contains("a time zone in all or none")
    );
    assert!(error("1714564800000,1,2\n7,1,2").contains("line 2: the time here and the latest one"));
    let unit = error("1714564800000,1,2,60");
    assert!(unit.contains("time_ms,from,to,duration_s"), "{unit}");
    let both = read("time_ms,from,to,duration_ms\n1714564800000,1,2,60000");
    assert_eq!(both.entries[0].what, What::Call(60.0));
    assert!(error("-1,2,3").contains("line 1: the time must be 0 to"));
    assert!(error("5e9,2,3").contains("line 1: the time must be 0 to"));
    assert!(error("1960-01-01,2,3").contains("line 1: the time must be 0 to"));
}

#[test]
fn ids_are_all_numbers_or_all_names() {
    assert_eq!(read("1,bob,alice\n2,carol,bob").ids, ["alice", "bob", "carol"]);
    assert_eq!(read("1,a1f0,12ab\n2,1234,A1F0").ids, ["1234", "12ab", "a1f0"]);
    assert_eq!(read("1,5.0,6\n2,10,5").ids, ["5", "6", "10"]);
    let mixed = error("t,a,b\n1,2,3\n1,x,3");
    assert!(
        mixed.starts_with("a.csv, line 3: from must be a whole number, as in line 2, not \"x\""),
        "{mixed}"
    );
    for missing in ["1,,3", "1,NaN,3", "1,N/A,3"] {
        assert!(error(missing).contains("from is missing"), "{missing}");
    }
    assert!(error("1,2,2").contains("must differ; both are 2"));
    assert!(error("1,2,2.0").contains("must differ"));
}

#[test]
fn a_row_without_a_duration_is_a_message_and_the_file_says_so() {
    let mixed = read("time,from,to,duration\n1,2,3,\n2,2,3,60\n3,2,3,-1\n4,2,3,0:01:30");
    let what: Vec<What> = mixed.entries.iter().map(|entry| entry.what).collect();
    assert_eq!(what, [What::Message, What::Call(60.0), What::Missed, What::Call(90.0)]);
    assert_eq!(mixed.notes, ["1 rows without a duration are messages, 3 are calls"]);
    assert!(error("1,2,3,-2").contains("or -1 for a missed call"));
    assert!(error("1,2,3,nan").contains("the duration must be 0 to"));
}

#[test]
fn an_empty_file_and_other_texts_say_what_is_needed() {
    for text in ["", "\u{feff}", "\n\n", "time,from,to\n", "# nothing\n"] {
        assert!(error(text).contains("at least one row"), "{text:?}");
    }
    assert!(error("1,2").contains("must be time,from,to[,duration]; there are 2 cells"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("utf16.csv");
    std::fs::write(&file, [0xff, 0xfe, 0x31, 0]).unwrap();
    let why = Recorded::read(&file).unwrap_err().to_string();
    assert!(why.contains("save it as CSV in UTF-8"), "{why}");
    let missing = Recorded::read(std::path::Path::new("/no/such.csv")).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such.csv: "), "{missing}");
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_strange_to_be_judged(text in "[0-9,;\t\"\n\r.:TZ#|+a-fé\u{feff}=-]{0,80}|.{0,40}") {
        let _ = Recorded::parse(&text, "a.csv");
    }

    #[test]
    fn rows_come_back_in_any_order_of_columns_and_with_any_separator(
        rows in proptest::collection::vec((0..100_000u32, 0..50u32, 50..99u32, 0..9_999u32), 1..20),
        turn in 0..4usize,
        separator in proptest::sample::select(vec![',', ';', '\t', '|']),
    ) {
        let line = |mut cells: Vec<String>| {
            cells.rotate_left(turn);
            cells.join(&separator.to_string())
        };
        let head = line(["time", "from", "to", "duration"].map(String::from).to_vec());
        let row = |row: &(u32, u32, u32, u32)| {
            line(vec![row.0.to_string(), row.1.to_string(), format!("\"{}\"", row.2), row.3.to_string()])
        };
        let text = std::iter::once(head).chain(rows.iter().map(row)).collect::<Vec<_>>().join("\n");
        let found = read(&text);
        let plain: Vec<String> = rows.iter().map(|(t, a, b, d)| format!("{t},{a},{b},{d}")).collect();
        let plain = read(&plain.join("\n"));
        proptest::prop_assert_eq!((found.ids, found.entries), (plain.ids, plain.entries));
    }
}
