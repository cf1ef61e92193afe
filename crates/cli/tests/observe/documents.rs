//! What is made from the definition of the command line: help, manual pages and completions, of every command.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::bundle::Bundle;

/// The commands that a page of help lists, with "moat" or a command before them.
fn listed(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").unwrap_or_else(|| panic!("{help}"));
    let lines = list.lines().take_while(|line| !line.is_empty());
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

/// The long flags that a text names.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let long = words.filter(|word| word.len() > 3 && word.starts_with("--") && !word[2..].starts_with('-'));
    long.map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_a_page_and_completions() {
    let bundle = Bundle::new("documents", &[], "true", |_| {});
    let help = bundle.text(&["help"]);
    let commands = listed(&help);
    assert!(commands.len() > 25 && commands.contains(&"do".to_owned()), "{commands:?}");
    let pages = bundle.dir.join("pages");
    bundle.text(&["man", pages.to_str().unwrap()]);
    let page = |name: &str| {
        let path = pages.join(format!("{name}.1"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}: {text}");
        // Roff escapes dashes.
        text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
    };
    let whole = page("moat");
    let mut expected: BTreeSet<String> = BTreeSet::from(["moat.1".to_owned()]);
    for command in &commands {
        let help = bundle.text(&["help", command]);
        assert!(help.contains(&format!("Usage: moat {command}")), "{help}");
        assert!(whole.contains(&format!("moat-{command}(1)")), "{command}");
        let text = page(&format!("moat-{command}"));
        expected.insert(format!("moat-{command}.1"));
        // Flags that all commands have are in the page of moat.
        let own = help.split_once("Options:\n").map_or("", |(_, options)| options);
        let named = |flag: &&String| text.contains(flag.as_str()) || whole.contains(flag.as_str());
        let lines: String = own.lines().filter(|line| line.trim_start().starts_with('-')).collect();
        let missing: Vec<String> = flags(&lines).into_iter().filter(|flag| !named(&flag)).collect();
        assert!(missing.is_empty(), "{command}: {missing:?}");
        // Commands of commands.
        if help.contains("\nCommands:\n") {
            for inner in listed(&help) {
                page(&format!("moat-{command}-{inner}"));
                expected.insert(format!("moat-{command}-{inner}.1"));
            }
        }
    }
    let made: BTreeSet<String> =
        fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(made, expected);
    for shell in ["bash", "zsh", "fish"] {
        let script = bundle.text(&["completion", shell]);
        let missing: Vec<&String> = commands.iter().filter(|command| !script.contains(command.as_str())).collect();
        assert!(missing.is_empty() && script.contains("profile-cpu"), "{shell}: {missing:?}");
        let path = bundle.dir.join(shell);
        fs::write(&path, script).unwrap();
        // Where the shell is installed.
        let parsed = Command::new(shell).arg("-n").arg(&path).stderr(Stdio::inherit()).status();
        assert!(parsed.is_err() || parsed.unwrap().success(), "{shell} can't read its completions");
    }
}
