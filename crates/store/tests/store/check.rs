//! Tree nodes that are not what their digests say.

use alike_core::digest::Digest;
use alike_core::tree::Nodes;
use alike_store::Commit;

use crate::fixture::fixture;

#[test]
fn a_damaged_tree_node_is_found_and_never_handed_out() {
    let f = fixture();
    let good = f.see().check_nodes(None, 100).unwrap();
    assert_eq!((good.checked, good.last), (2, None), "the two empty trees");
    assert!(good.damaged.is_empty());

    let bad = Digest::of(b"another node");
    let commit = Commit {
        nodes: vec![(bad, b"not that node"[..].into())],
        ..Commit::default()
    };
    f.commit(commit);
    let snapshot = f.see();
    let all = snapshot.check_nodes(None, 100).unwrap();
    assert_eq!((all.checked, all.damaged), (3, vec![bad]));
    let error = snapshot.node(&bad).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    // In parts, too.
    let (mut checked, mut after) = (0, None);
    loop {
        let part = snapshot.check_nodes(after.as_ref(), 2).unwrap();
        checked += part.checked;
        after = part.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(checked, 3);
}
