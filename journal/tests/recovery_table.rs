//! The table that says where the log ends: complete, without contradiction, and the same in the
//! document as in the code.

use forebay_journal::recovery::table::{
    Acked, Facts, Later, Place, ROWS, Row, Stopped, Verdict, decide,
};

const DOCUMENT: &str = include_str!("../../docs/format.md");

fn all_facts() -> Vec<Facts> {
    let mut all = Vec::new();
    for &place in Place::ALL {
        for &later in Later::ALL {
            for &acked in Acked::ALL {
                for &stopped in Stopped::ALL {
                    all.push(Facts {
                        place,
                        later,
                        acked,
                        stopped,
                    });
                }
            }
        }
    }
    all
}

#[test]
fn each_combination_of_facts_matches_exactly_one_row() {
    let all = all_facts();
    assert_eq!(all.len(), 5 * 5 * 3 * 2);
    let mut used = vec![0; ROWS.len()];
    for facts in &all {
        let matching: Vec<usize> = (0..ROWS.len())
            .filter(|&index| ROWS[index].matches(facts))
            .collect();
        let [index] = matching[..] else {
            panic!("{facts:?} matches rows {matching:?}")
        };
        assert_eq!(decide(facts).number, ROWS[index].number);
        used[index] += 1;
    }
    for (row, used) in ROWS.iter().zip(&used) {
        assert!(*used > 0, "row {} matches nothing", row.number);
    }
}

/// Written down apart from the rows: what must hold whatever the rows are.
#[test]
fn in_doubt_means_faulty() {
    for facts in all_facts() {
        let verdict = decide(&facts).verdict;
        let is_proven = matches!(facts.later, Later::ProvesDurable | Later::BeyondWindow)
            || facts.acked == Acked::AtOrAbove;
        let is_stopped = facts.stopped == Stopped::Yes;
        let is_in_doubt = facts.place == Place::Unreadable || facts.later == Later::Unreadable;
        if is_proven || is_in_doubt && !is_stopped {
            assert_eq!(verdict, Verdict::Corrupt, "{facts:?}");
        }
        // What a power cut alone can do always opens.
        let by_power_cut = matches!(facts.later, Later::None | Later::InWindow)
            && facts.place != Place::Unreadable;
        if by_power_cut && !is_proven && !is_stopped {
            assert_ne!(verdict, Verdict::Corrupt, "{facts:?}");
        }
        // Nothing that was begun is forgotten without a trace.
        if verdict == Verdict::End && !is_stopped {
            assert!(
                facts.place != Place::Torn && facts.later == Later::None,
                "{facts:?}"
            );
        }
    }
}

fn column<T: Copy + PartialEq + std::fmt::Debug>(cell: &str, words: &[(&str, T)]) -> Vec<T> {
    if cell == "any" {
        return words.iter().map(|&(_, value)| value).collect();
    }
    let value_of = |word: &str| {
        let found = words.iter().find(|(known, _)| *known == word);
        found
            .unwrap_or_else(|| panic!("the document says {word:?}, not one of {words:?}"))
            .1
    };
    cell.split(", ").map(value_of).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(row: &Row, documented: &[T], coded: &[T]) {
    assert_eq!(documented, coded, "row {}", row.number);
}

#[test]
fn the_document_holds_the_same_table() {
    let places = [
        ("none", Place::None),
        ("zero", Place::Zero),
        ("stale", Place::Stale),
        ("torn", Place::Torn),
        ("unreadable", Place::Unreadable),
    ];
    let later = [
        ("none", Later::None),
        ("in window", Later::InWindow),
        ("unreadable", Later::Unreadable),
        ("beyond window", Later::BeyondWindow),
        ("proves durable", Later::ProvesDurable),
    ];
    let acked = [
        ("unknown", Acked::Unknown),
        ("below", Acked::Below),
        ("at or above", Acked::AtOrAbove),
    ];
    let stopped = [("no", Stopped::No), ("yes", Stopped::Yes)];
    let verdicts = [
        ("end", Verdict::End),
        ("cut tail", Verdict::CutTail),
        ("corrupt", Verdict::Corrupt),
    ];

    let (_, table) = DOCUMENT
        .split_once("| Row | Place | Behind it |")
        .expect("table of section 8");
    let lines: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(lines.len(), ROWS.len(), "rows in the document");
    for (line, row) in lines.iter().zip(ROWS) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, place, behind, elsewhere, stop, verdict] = cells[..] else {
            panic!("{line:?} does not have six columns")
        };
        assert_eq!(number, row.number.to_string());
        same(row, &column(place, &places), row.place);
        same(row, &column(behind, &later), row.later);
        same(row, &column(elsewhere, &acked), row.acked);
        same(row, &column(stop, &stopped), row.stopped);
        same(row, &column(verdict, &verdicts), &[row.verdict]);
    }
}
