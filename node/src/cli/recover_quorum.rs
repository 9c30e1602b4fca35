//! `volt-node recover-quorum`: makes one node that is left the whole metadata group, when a majority of it is gone for good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use volt_engine::{NodeId, PartitionId};

use crate::metadata::{Loss, Remains, list};
use crate::world::World;

/// Arguments of `volt-node recover-quorum`.
#[derive(Args, Clone, Debug)]
pub struct RecoverQuorum {
    /// The data directory of a node that is left, and does not run
    #[arg(long, env = "VOLT_DATA")]
    data: PathBuf,
    /// The nodes that are gone for good, with their disks
    #[arg(long, value_delimiter = ',', required = true)]
    lost: Vec<NodeId>,
    /// Accepts what is lost, and does it: the cluster's UUID. Without it, only tells
    #[arg(long, value_name = "UUID")]
    accept_loss: Option<String>,
}

/// Tells what would be lost, and, when it is accepted, changes the data directory.
pub async fn run(arguments: RecoverQuorum) -> anyhow::Result<()> {
    let data = &arguments.data;
    if !data.join("identity").exists() {
        bail!("{} is no node's data directory", data.display());
    }
    let world = World::production(data)
        .with_context(|| format!("cannot use the data directory {}; does its node run?", data.display()))?;
    let lost: BTreeSet<NodeId> = arguments.lost.iter().copied().collect();
    let remains = Remains::read(&world.disk).await?;
    remains.check(&lost)?;
    print!("{}", report(&remains, &lost));
    let uuid = remains.identity.cluster_uuid.clone();
    match arguments.accept_loss {
        None => {
            println!("nothing was changed; to go on like this: --accept-loss {uuid}");
            return Ok(());
        }
        Some(given) if given != uuid => bail!("this is cluster {uuid}, not {given}: nothing was changed"),
        Some(_) => {}
    }
    remains.make_group(&Arc::clone(&world.disk), lost).await?;
    println!(
        "done: start this node, then the others that are left, then new ones in place of the lost, with empty data directories"
    );
    Ok(())
}

fn report(remains: &Remains, lost: &BTreeSet<NodeId>) -> String {
    let (term, index) = remains.place();
    let node = remains.identity.node_id;
    let mut text = format!(
        "cluster {}, node {node}: the metadata group is nodes {}, of which {} are lost\n\
         its log ends at entry {index} of term {term}: if another node that is left has more, term first, do it there\n\
         what the group decided later is lost, as a table that was just made, or that a replica here was no longer in sync\n",
        remains.identity.cluster_uuid,
        list(&remains.voters),
        list(remains.voters.intersection(lost)),
    );
    let mut by_loss: BTreeMap<&str, Vec<PartitionId>> = BTreeMap::new();
    for (partition, what) in remains.losses(lost) {
        by_loss.entry(in_words(what)).or_default().push(partition);
    }
    if by_loss.is_empty() {
        text.push_str("of every partition a replica is left that has all that was acknowledged\n");
    }
    for (what, partitions) in by_loss {
        text.push_str(&format!("partitions {}: {what}\n", list(&partitions)));
    }
    text
}

fn in_words(loss: Loss) -> &'static str {
    match loss {
        Loss::Nothing => "nothing is lost",
        Loss::Newest => "the newest of what was acknowledged may be lost",
        Loss::Some => "the replicas that are left were not in sync: anything may be lost",
        Loss::All => "no replica is left: everything is lost",
    }
}
