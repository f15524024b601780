//! A made-up machine in, figures and recommendations out.

use super::*;
use std::fs;
use std::path::Path;

fn write(root: &Path, path: &str, text: &str) {
    let file = root.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Two busy cores, 4 GiB nearly full, half of it allowed by version 2 control groups.
fn machine(dir: &Path) -> Roots {
    let (proc, cgroup) = (dir.join("proc"), dir.join("cgroup"));
    write(&proc, "loadavg", "5.00 3.00 1.00 3/200 4242\n");
    write(
        &proc,
        "stat",
        "cpu  600 0 200 150 50 0 0 0 0 0\ncpu0 300 0 100 75 25 0 0 0\ncpu1 300 0 100 75 25 0 0 0\nctxt 1\n",
    );
    write(
        &proc,
        "meminfo",
        "MemTotal:        4194304 kB\nMemFree:          100000 kB\nMemAvailable:     209715 kB\nSwapTotal:       1048576 kB\nSwapFree:         943718 kB\n",
    );
    write(&proc, "uptime", "1000.00 1500.00\n");
    write(
        &proc,
        "pressure/cpu",
        "some avg10=70.00 avg60=65.50 avg300=1.00 total=1\n",
    );
    write(
        &proc,
        "pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    );
    write(
        &proc,
        "7/stat",
        "7 (a) (name)) S 1 7 7 0 -1 4 0 0 0 0 30000 20000 0 0 20 0 1 0 50000 1000 2048 1 1\n",
    );
    write(
        &proc,
        "8/stat",
        "8 (small) S 1 8 8 0 -1 4 0 0 0 0 10 10 0 0 20 0 1 0 0 1000 4 1 1\n",
    );
    write(&proc, "self/cgroup", "0::/mesh/agent\n");
    write(&cgroup, "mesh/agent/cpu.max", "150000 100000\n");
    write(&cgroup, "mesh/agent/memory.max", "max\n");
    write(&cgroup, "mesh/memory.max", "2147483648\n");
    write(&cgroup, "mesh/memory.current", "1073741824\n");
    Roots { proc, cgroup }
}

#[test]
fn a_strained_machine_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let report = State::default().report(&machine(dir.path()));
    let figures = &report["figures"];
    assert_eq!(figures["cores"], 2);
    assert_eq!(figures["load_per_core"], 2.5);
    assert_eq!(figures["cpu"]["busy_percent"], 80.0);
    assert_eq!(figures["cpu"]["io_wait_percent"], 5.0);
    assert_eq!(figures["cpu"]["since"], "boot");
    assert_eq!(figures["memory_used_percent"], 95.0);
    assert_eq!(figures["cpu_limit_millicores"], 1500);
    assert_eq!(figures["memory_limit_bytes"], 2_147_483_648_u64);
    assert_eq!(figures["memory_limit_used_percent"], 50.0);
    let top = &figures["top_by_memory"][0];
    assert_eq!(
        (&top["pid"], &top["name"]),
        (&7.into(), &"a) (name)".into())
    );
    assert_eq!(top["cpu_percent"], 100.0);
    let advice: Vec<(String, String)> = report["recommendations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let text = |f: &str| r[f].as_str().unwrap().to_owned();
            (text("severity"), text("why"))
        })
        .collect();
    let expected = [
        (
            "critical",
            "load per core is 2.5 over the last minute, on 2 core(s)",
        ),
        ("critical", "95 % of memory is in use"),
        (
            "critical",
            "work waited for cpu in 65.5 % of the last minute",
        ),
        ("info", "a control group allows 1500 of 2000 millicores"),
    ];
    assert_eq!(
        advice,
        expected.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec()
    );
    assert_eq!(report["not_readable"], json!(["disks"]));
}

#[test]
fn version_one_groups_and_hybrids_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let roots = machine(dir.path());
    write(
        &roots.proc,
        "self/cgroup",
        "4:memory:/x\n1:cpu,cpuacct:/\n0::/\n",
    );
    write(&roots.cgroup, "memory/x/memory.limit_in_bytes", "1000000\n");
    write(&roots.cgroup, "memory/x/memory.usage_in_bytes", "900000\n");
    write(
        &roots.cgroup,
        "memory/memory.limit_in_bytes",
        "9223372036854771712\n",
    );
    write(&roots.cgroup, "cpu/cpu.cfs_quota_us", "-1\n");
    write(&roots.cgroup, "cpu/cpu.cfs_period_us", "100000\n");
    let limits = cgroup::Limits::read(&roots);
    assert_eq!(limits.memory_bytes, Some(1_000_000));
    assert_eq!(limits.memory_used_bytes, Some(900_000));
    assert_eq!(limits.cpu_millicores, None);
}

#[test]
fn an_empty_machine_says_what_it_hides() {
    let dir = tempfile::tempdir().unwrap();
    let roots = Roots {
        proc: dir.path().join("none"),
        cgroup: dir.path().join("none"),
    };
    let report = State::default().report(&roots);
    assert_eq!(report["recommendations"], json!([]));
    assert_eq!(report["not_readable"].as_array().unwrap().len(), 6);
}

#[test]
fn garbage_in_proc_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let roots = machine(dir.path());
    for file in [
        "stat",
        "meminfo",
        "loadavg",
        "pressure/cpu",
        "7/stat",
        "self/cgroup",
    ] {
        for text in ["", "cpu", "\u{0}", "cpu  x y", "7 (", ")", "0::/../.."] {
            write(&roots.proc, file, text);
            State::default().report(&roots);
        }
    }
}

#[test]
fn this_machine_is_measured() {
    let report = State::default().report(&Roots::default());
    assert!(report["figures"]["memory"]["total_bytes"].as_u64().unwrap() > 0);
    assert!(report["figures"]["processes"].as_u64().unwrap() > 0);
}
