//! What README and docs claim about the code, compared with the code.

use aio::{Backend, Service};
use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The cells of the rows of a table whose first row begins with this, without the line under it.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn version(text: &str) -> (u32, u32) {
    let (major, minor) = text.split_once('.').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

#[test]
fn the_table_of_operations_agrees_with_the_probe() {
    let expected: Vec<Vec<String>> = Backend::probe()
        .operations()
        .iter()
        .map(|row| {
            // The oldest kernel that the io_uring backend works on.
            let before = match row.operation {
                _ if version(row.since) <= (5, 11) => "—".into(),
                "Cancel" | "FutexWait" | "WaitId" => Service::Unsupported.to_string(),
                "SendZc" | "SendMsgZc" => Service::Ring.to_string(),
                _ => Service::SystemCall.to_string(),
            };
            let emulation = match (row.operation, row.emulation) {
                // README speaks of kernels since 5.16.
                ("FutexWait", Service::Unsupported) => Service::Worker,
                (_, service) => service,
            };
            vec![row.operation.into(), row.since.into(), before, emulation.to_string()]
        })
        .collect();
    assert_eq!(table(&read("README.md"), "| operation | io_uring since |"), expected);
}

#[test]
fn the_tests_that_the_page_about_soundness_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests: String = fs::read_dir(root.join("tests"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    tests += &read("src/op/tests.rs");
    let page = read("docs/soundness.md");
    let rows = table(&page, "| rule | upheld by | tested by |");
    assert!(rows.len() > 5, "the table of rules was not found");
    for row in rows {
        // Inline code is every second piece. What is no name of a test is a path or a type.
        let names = row[2].split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2);
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "docs/soundness.md names {name}, which does not exist");
        }
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let mut pages: Vec<String> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(String::from).into();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        pages.push(format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    }
    for page in pages {
        let text = read(&page);
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join(&page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap();
            if path.is_empty() || path.contains("://") || path.contains(char::is_whitespace) {
                continue;
            }
            assert!(here.parent().unwrap().join(path).exists(), "{page} links to {target}");
        }
    }
}
