//! The trie of stacks: each node is a frame under its caller's node.

use std::collections::HashMap;

use crate::hash::FastHash;
use crate::reader::codes::Located;

/// A node of the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The empty stack.
    pub const ROOT: Self = Self(u32::MAX);
}

/// Index of a distinct frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameIndex(pub u32);

impl FrameIndex {
    /// Stands for frames that were left out of a stack too deep to be walked.
    pub const TRUNCATED: Self = Self(u32::MAX);
}

/// Most nodes that are kept, about 50 MB of them.
const MOST_NODES: usize = 1 << 20;

/// Frames and nodes, both numbered in order of first sight: parents come before children.
#[derive(Debug, Default)]
pub struct StackTrie {
    frames: Vec<Located>,
    frame_index: HashMap<Located, u32, FastHash>,
    nodes: Vec<(NodeId, FrameIndex)>,
    /// By the frame itself: to look for its index first would be one more miss of the cache.
    children: HashMap<(NodeId, Located), NodeId, FastHash>,
    truncation: Option<NodeId>,
}

impl StackTrie {
    /// The node of `frame` under `parent`, made if needed; `None` if the trie is full.
    pub fn child(&mut self, parent: NodeId, frame: Located) -> Option<NodeId> {
        if let Some(&node) = self.children.get(&(parent, frame)) {
            return Some(node);
        }
        let next = self.frames.len() as u32;
        let index = *self.frame_index.entry(frame).or_insert(next);
        if index == next {
            self.frames.push(frame);
        }
        let node = self.add(parent, FrameIndex(index))?;
        self.children.insert((parent, frame), node);
        Some(node)
    }

    /// Whether `frames` lead from the node `below` to another one; then the nodes on the way are added to `path`.
    pub fn is_below(
        &self,
        node: NodeId,
        below: NodeId,
        frames: &[Located],
        path: &mut Vec<NodeId>,
    ) -> bool {
        let before = path.len();
        path.resize(before + frames.len(), NodeId::ROOT);
        let mut at = node;
        for (place, frame) in path[before..].iter_mut().zip(frames).rev() {
            let found = self.nodes.get(at.0 as usize);
            let known = found.and_then(|&(_, known)| self.frames.get(known.0 as usize));
            if known != Some(frame) {
                break;
            }
            *place = at;
            at = found.map_or(NodeId::ROOT, |&(parent, _)| parent);
        }
        let is_all = path.get(before).is_none_or(|&first| first != NodeId::ROOT) && at == below;
        if !is_all {
            path.truncate(before);
        }
        is_all
    }

    /// The node below which truncated stacks stand.
    pub fn truncation(&mut self) -> NodeId {
        if self.truncation.is_none() {
            self.truncation = self.add(NodeId::ROOT, FrameIndex::TRUNCATED);
        }
        self.truncation.unwrap_or(NodeId::ROOT)
    }

    fn add(&mut self, parent: NodeId, frame: FrameIndex) -> Option<NodeId> {
        if self.nodes.len() >= MOST_NODES {
            return None;
        }
        self.nodes.push((parent, frame));
        Some(NodeId(self.nodes.len() as u32 - 1))
    }

    /// Distinct frames, by [`FrameIndex`].
    pub fn frames(&self) -> &[Located] {
        &self.frames
    }

    /// Parent and frame of each node, by [`NodeId`].
    pub fn nodes(&self) -> &[(NodeId, FrameIndex)] {
        &self.nodes
    }
}
