//! `cargo xtask bench clone`: a cluster from nothing beside clones of the same, in one run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use podwire_cluster::{
    Bootstrap, Cell, Cluster, ClusterPlan, Host, ImageFiles, Phase as Part, Stage, StageName,
    Stages,
};
use podwire_probe::{FetchRequest, Outcome};
use serde::Serialize;
use time::OffsetDateTime;

use crate::command::cli::house::BenchCloneArgs;
use crate::command::consent;
use crate::command::session::Session;
use crate::prepare::preparation::Preparation;
use crate::prepare::wanted::Wanted;
use crate::prepare::{machine, parts, tickets};
use crate::say::stop::Stop;
use crate::say::text::table;

/// From an API that answers to a request answered by a Pod on another node.
const CROSS_NODE: Duration = Duration::from_secs(20);
/// How long a fresh clone may busy itself before its idle load is measured.
const SETTLE: Duration = Duration::from_secs(60);
/// For how long that is measured.
const IDLE: Duration = Duration::from_secs(60);

/// What was measured. Times in seconds of the host's; of clones, the median of all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CloneBench {
    pub(crate) accelerator: String,
    pub(crate) cores: usize,
    pub(crate) nodes: u32,
    pub(crate) clones: u32,
    /// From nothing but the image to the first answer of a Pod on another node.
    pub(crate) cold_s: f64,
    /// Of it, until all Nodes were Ready: every stage up to `cni`.
    pub(crate) cold_ready_s: f64,
    pub(crate) disks_s: f64,
    pub(crate) process_start_s: f64,
    pub(crate) load_s: f64,
    pub(crate) resume_s: f64,
    /// Starting the processes, loading and resuming.
    pub(crate) qemu_part_s: f64,
    /// The next four begin with the first thing done for the clone.
    pub(crate) first_guest_answer_s: f64,
    pub(crate) all_guests_answer_s: f64,
    pub(crate) api_ready_s: f64,
    pub(crate) first_cross_node_s: f64,
    pub(crate) cold_over_clone: f64,
    /// Memory that the clone does not share with its stage, MiB per node, right after the first
    /// answer.
    pub(crate) private_memory_mib: BTreeMap<String, u64>,
    /// Share of all cores that the idle cluster keeps busy.
    pub(crate) idle_cpu_percent: f64,
    /// Disk that each stage occupies, MiB.
    pub(crate) stage_disk_mib: BTreeMap<String, u64>,
}

/// Measures, and prints a table or JSON.
pub(crate) fn clone(session: &Session, args: &BenchCloneArgs, json: bool) -> Result<(), Stop> {
    let bundle = parts::newest_modules(session)?;
    let wanted = Wanted::cluster(&bundle, args.nodes);
    consent::host_packages(session, false)?;
    let dir = session.workspace.new_folder(OffsetDateTime::now_utc())?;
    let mut preparation = Preparation::new(session, wanted);
    let judged = preparation.judge()?;
    let node = preparation.node_image()?;
    let host = preparation.host(&judged);
    let cell = Cell::usual(Bootstrap::ByHand);
    let plan = wanted.cluster_plan(session, cell, &node, host.accelerator)?;
    let _lock = session.cache.lock("stage", &session.progress)?;
    session.progress.phase("bench clone");
    let _ticket = tickets::ticket(session, "bench clone", &plan)?;
    let scratch = session.cache.staging("bench")?;
    let bench = Bench {
        session,
        host: &host,
        plan: &plan,
        image: parts::image_files(&node),
        scratch: scratch.path(),
        logs: &dir,
    };
    let measured = session.wait_for(bench.measure(args.clones));
    session.progress.idle();
    let measured = measured?;
    if json {
        outln!(
            "{}",
            serde_json::to_string_pretty(&measured).context("cannot write JSON")?
        );
    } else {
        out!("{}", shown(&measured));
    }
    Ok(())
}

struct Bench<'a> {
    session: &'a Session,
    host: &'a Host,
    plan: &'a ClusterPlan,
    image: ImageFiles,
    scratch: &'a Path,
    logs: &'a Path,
}

/// One clone's times.
struct Sample {
    parts: BTreeMap<String, f64>,
    first_cross_node: f64,
}

impl Bench<'_> {
    async fn measure(&self, clones: u32) -> anyhow::Result<CloneBench> {
        let report = &self.session.progress;
        let cold = Instant::now();
        let stages = Stages::at(&self.scratch.join("stages"));
        let get = async |name| {
            stages
                .get(self.host, self.plan, &self.image, name, self.logs, report)
                .await
        };
        get(StageName::Cni).await?;
        let cold_ready_s = cold.elapsed().as_secs_f64();
        let bare = get(StageName::WorkloadBare).await?;
        let logs = self.logs.join("last-step");
        fs::create_dir_all(&logs)?;
        let last = self.scratch.join("last");
        let (cluster, thawed) = bare.thawed(self.host, &last, &logs, None, report).await?;
        cluster.add_all_routes().await?;
        cluster.start_kube_proxy().await?;
        first_cross_node(&cluster, self.host).await?;
        let cold_s = cold.elapsed().as_secs_f64();
        cluster.stop().await;
        drop(thawed);
        let stage = get(StageName::Workload).await?;

        let mut samples = Vec::new();
        for number in 1..=clones {
            report.step(&format!("clone {number} of {clones}"));
            let (sample, cluster) = self.one_clone(&stage, number).await?;
            cluster.stop().await;
            samples.push(sample);
        }
        report.step("let one more clone idle");
        let (sample, cluster) = self.one_clone(&stage, clones + 1).await?;
        samples.push(sample);
        let private_memory_mib = cluster
            .nodes()
            .iter()
            .map(|node| Ok((node.name().to_owned(), private_mib(node.machine().pid())?)))
            .collect::<anyhow::Result<_>>()?;
        tokio::time::sleep(SETTLE).await;
        let before = busy(&cluster)?;
        let idle = Instant::now();
        tokio::time::sleep(IDLE).await;
        let busy_s = busy(&cluster)? - before;
        #[expect(clippy::cast_precision_loss, reason = "cores are few")]
        let cores = machine::cores() as f64;
        let idle_cpu_percent = busy_s / idle.elapsed().as_secs_f64() / cores * 100.0;
        cluster.stop().await;

        let mut stage_disk_mib = BTreeMap::new();
        for name in self.plan.stages().iter().copied() {
            if let Some(stage) = stages.find(self.plan, name)? {
                stage_disk_mib.insert(name.to_string(), stage.disk() >> 20);
            }
        }
        let of = |part: &str| {
            median(
                samples
                    .iter()
                    .map(|s| s.parts.get(part).copied().unwrap_or(0.0)),
            )
        };
        let begun = of(Part::DISKS) + of(Part::START) + of(Part::LOAD) + of(Part::RESUME);
        let first_cross_node_s = median(samples.iter().map(|sample| sample.first_cross_node));
        Ok(CloneBench {
            accelerator: self.host.accelerator.to_string(),
            cores: machine::cores(),
            nodes: self.plan.nodes,
            clones: clones + 1,
            cold_s,
            cold_ready_s,
            disks_s: of(Part::DISKS),
            process_start_s: of(Part::START),
            load_s: of(Part::LOAD),
            resume_s: of(Part::RESUME),
            qemu_part_s: of(Part::START) + of(Part::LOAD) + of(Part::RESUME),
            first_guest_answer_s: begun + of(Part::FIRST_ANSWER),
            all_guests_answer_s: begun + of(Part::NODES_ANSWER),
            api_ready_s: begun + of(Part::API_READY),
            first_cross_node_s,
            cold_over_clone: cold_s / first_cross_node_s,
            private_memory_mib,
            idle_cpu_percent,
            stage_disk_mib,
        })
    }

    async fn one_clone(&self, stage: &Stage, number: u32) -> anyhow::Result<(Sample, Cluster)> {
        let dir = self.scratch.join(format!("clone-{number}"));
        let started = Instant::now();
        let cluster = Cluster::clone_of(self.host, stage, &dir, None).await?;
        first_cross_node(&cluster, self.host).await?;
        let sample = Sample {
            first_cross_node: started.elapsed().as_secs_f64(),
            parts: cluster
                .timings()
                .iter()
                .map(|part| (part.name.clone(), part.seconds))
                .collect(),
        };
        Ok((sample, cluster))
    }
}

/// Asks a Pod on node 2 from one on node 1 until it answers.
async fn first_cross_node(cluster: &Cluster, host: &Host) -> anyhow::Result<()> {
    let pods = cluster.one_pod_per_node().await?;
    let address = |number| {
        let of_node = pods.get(&number).copied();
        of_node.with_context(|| format!("the workload has no running Pod on node{number}"))
    };
    let (from, to) = (address(1)?, address(2)?);
    let request = FetchRequest::new([format!("http://{to}/")]);
    let limit = host.limit(CROSS_NODE);
    let started = Instant::now();
    loop {
        let report = cluster.fetch_from_pod(1, from, &request).await?;
        let target = report
            .targets
            .first()
            .context("the probe reports nothing")?;
        if target.all(Outcome::Answered) {
            return Ok(());
        }
        if started.elapsed() > limit {
            let limit = limit.as_secs();
            bail!(
                "{to} does not answer {from} within {limit} s: {:?}",
                target.results
            );
        }
    }
}

/// Anonymous memory of a process: what it does not share with the stage's files (proc(5)).
fn private_mib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no RssAnon in {path}"))? >> 10)
}

/// Processor seconds that its machines have used so far.
fn busy(cluster: &Cluster) -> anyhow::Result<f64> {
    let times = cluster.nodes().iter().map(|node| node.machine().cpu_time());
    Ok(times.sum::<Result<Duration, _>>()?.as_secs_f64())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn shown(bench: &CloneBench) -> String {
    let seconds = |what: &str, seconds: f64| vec![what.to_owned(), format!("{seconds:.2} s")];
    let mut rows = vec![
        seconds("cold: three stages to Ready nodes", bench.cold_ready_s),
        seconds("cold: to the first answer from another node", bench.cold_s),
        seconds("clone: disks", bench.disks_s),
        seconds("clone: QEMU processes", bench.process_start_s),
        seconds("clone: load", bench.load_s),
        seconds("clone: resume", bench.resume_s),
        seconds("clone: QEMU's part of it", bench.qemu_part_s),
        seconds(
            "clone: to the first guest's answer",
            bench.first_guest_answer_s,
        ),
        seconds("clone: to every guest's answer", bench.all_guests_answer_s),
        seconds("clone: to the API's readiness", bench.api_ready_s),
        seconds(
            "clone: to the first answer from another node",
            bench.first_cross_node_s,
        ),
        vec![
            "cold over clone".into(),
            format!("{:.1}", bench.cold_over_clone),
        ],
        vec![
            "idle: share of all cores".into(),
            format!("{:.1} %", bench.idle_cpu_percent),
        ],
    ];
    for (node, mib) in &bench.private_memory_mib {
        rows.push(vec![
            format!("private memory of {node}"),
            format!("{mib} MiB"),
        ]);
    }
    for (stage, mib) in &bench.stage_disk_mib {
        rows.push(vec![format!("disk of stage {stage}"), format!("{mib} MiB")]);
    }
    format!(
        "{} nodes, {} on {} cores, median of {} clones\n\n{}",
        bench.nodes,
        bench.accelerator,
        bench.cores,
        bench.clones,
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one_counts() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).abs() < f64::EPSILON);
    }

    #[test]
    fn this_process_has_memory() {
        let own = std::process::id();
        assert!(private_mib(own).unwrap() < 10_000);
        assert!(private_mib(u32::MAX).is_err());
    }
}
