//! What a wait is: looks, what they lack, who would have to act, and when it was clear that nobody does.

pub(crate) mod eventually;
pub(crate) mod evidence;
pub(crate) mod history;
pub(crate) mod needs;
pub(crate) mod probe;
