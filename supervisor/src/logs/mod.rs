//! To come.
pub struct Line {
    pub bytes: Vec<u8>,
}
pub fn tail(_: &std::path::Path, _: usize) -> std::io::Result<Vec<Vec<u8>>> {
    Ok(vec![])
}
pub fn follow(_: &std::path::Path, _: u64) -> futures::stream::BoxStream<'static, std::io::Result<Line>> {
    Box::pin(futures::stream::empty())
}
