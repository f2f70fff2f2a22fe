//! Tables of plain columns as Parquet, without the Arrow layer: three types are all that is needed here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use parquet::basic::{Compression, ConvertedType, Encoding, Repetition, Type as Physical};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type, TypePtr};

/// Rows of a group: what is held in memory before it is written.
const GROUP: usize = 1 << 20;

/// The values of a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Values {
    /// Numbers with fractions.
    Float(Vec<f64>),
    /// Whole numbers, instants in nanoseconds among them.
    Integer(Vec<i64>),
    /// Text. Equal neighbours should be one `Arc`.
    Text(Vec<Arc<str>>),
}

impl Values {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No values, of the same type.
    fn emptied(&self) -> Self {
        match self {
            Self::Float(_) => Self::Float(Vec::new()),
            Self::Integer(_) => Self::Integer(Vec::new()),
            Self::Text(_) => Self::Text(Vec::new()),
        }
    }

    fn append(&mut self, more: Self) -> anyhow::Result<()> {
        match (self, more) {
            (Self::Float(values), Self::Float(more)) => values.extend(more),
            (Self::Integer(values), Self::Integer(more)) => values.extend(more),
            (Self::Text(values), Self::Text(more)) => values.extend(more),
            _ => bail!("a column has values of two types"),
        }
        Ok(())
    }
}

/// A column with its name.
pub type Column = (&'static str, Values);

/// Writes a table in groups of rows, so that it need not fit in memory.
pub struct Writer<W: Write + Send> {
    file: SerializedFileWriter<W>,
    names: Vec<String>,
    pending: Vec<Values>,
}

impl<W: Write + Send> Writer<W> {
    /// A table with these columns; the values say their types and are the first rows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(to: W, columns: Vec<(String, Values)>) -> anyhow::Result<Self> {
        let mut fields = Vec::with_capacity(columns.len());
        // A dictionary suits columns that repeat themselves; instants and measurements do not.
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(None);
        for (name, values) in &columns {
            let (physical, converted) = match values {
                Values::Float(_) => (Physical::DOUBLE, ConvertedType::NONE),
                Values::Integer(_) => (Physical::INT64, ConvertedType::NONE),
                Values::Text(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
            };
            let field = Type::primitive_type_builder(name, physical)
                .with_repetition(Repetition::REQUIRED)
                .with_converted_type(converted)
                .build()?;
            fields.push(TypePtr::from(field));
            if name.ends_with("_ns") {
                let path = ColumnPath::from(name.as_str());
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
        let schema = Type::group_type_builder("rows").with_fields(fields).build()?;
        let file = SerializedFileWriter::new(to, schema.into(), properties.build().into())?;
        let (names, pending) = columns.into_iter().unzip();
        Ok(Self { file, names, pending })
    }

    /// Adds rows: the columns in the order and with the types of the first.
    ///
    /// # Errors
    /// The columns are others, or the file cannot be written.
    pub fn push(&mut self, rows: Vec<Values>) -> anyhow::Result<()> {
        if rows.len() != self.pending.len() {
            bail!("{} columns instead of {}", rows.len(), self.pending.len());
        }
        for (pending, more) in self.pending.iter_mut().zip(rows) {
            pending.append(more)?;
        }
        if self.pending.first().is_some_and(|column| column.len() >= GROUP) {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let rows = self.pending.first().map_or(0, Values::len);
        if let Some(index) = self.pending.iter().position(|column| column.len() != rows) {
            let name = self.names.get(index).map_or("", String::as_str);
            bail!("the column {name} has not as many rows as the others");
        }
        let mut group = self.file.next_row_group()?;
        for values in &mut self.pending {
            let mut column = group.next_column()?.context("a column too many")?;
            let next = values.emptied();
            match std::mem::replace(values, next) {
                Values::Float(values) => {
                    column.typed::<DoubleType>().write_batch(&values, None, None)?;
                }
                Values::Integer(values) => {
                    column.typed::<Int64Type>().write_batch(&values, None, None)?;
                }
                Values::Text(values) => {
                    column.typed::<ByteArrayType>().write_batch(&shared(&values), None, None)?;
                }
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes what is pending and the end of the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<W> {
        self.flush()?;
        Ok(self.file.into_inner()?)
    }
}

/// Texts as Parquet takes them; equal neighbours share their bytes.
fn shared(values: &[Arc<str>]) -> Vec<ByteArray> {
    let mut last: Option<(&Arc<str>, ByteArray)> = None;
    let mut all = Vec::with_capacity(values.len());
    for value in values {
        let bytes = match &last {
            Some((same, bytes)) if Arc::ptr_eq(same, value) => bytes.clone(),
            _ => ByteArray::from(value.as_bytes().to_vec()),
        };
        all.push(bytes.clone());
        last = Some((value, bytes));
    }
    all
}

/// Most rows that memory is taken for before they are read: a damaged file may promise any number.
const AT_ONCE: usize = 1 << 20;

/// Reads a table that [`Writer`] or anyone else wrote: each group of rows, its columns by name, and how many rows came before.
/// Whole numbers of 32 bits and numbers of single precision come as their larger kinds; a column may be declared as one that
/// can lack values, as pandas and polars do, but must not lack any. Columns of other types are left out.
///
/// # Errors
/// The file cannot be read, a value is missing, or `each` gives an error.
pub fn read_columns(
    file: &Path,
    mut each: impl FnMut(BTreeMap<String, Values>, usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let inner = || -> anyhow::Result<()> {
        let reader = SerializedFileReader::new(File::open(file)?)?;
        let mut before = 0;
        for index in 0..reader.num_row_groups() {
            let group = reader.get_row_group(index)?;
            let rows = usize::try_from(group.metadata().num_rows())?;
            let mut columns = BTreeMap::new();
            for (number, column) in group.metadata().columns().iter().enumerate() {
                let described = column.column_descr();
                // Lists and tables within a table are none of ours.
                if described.max_rep_level() > 0 || column.column_path().parts().len() > 1 {
                    continue;
                }
                let name = column.column_path().string();
                let levels = described.max_def_level();
                let wide = |unsigned: i32| {
                    if described.converted_type() == ConvertedType::UINT_32 {
                        i64::from(unsigned.cast_unsigned())
                    } else {
                        i64::from(unsigned)
                    }
                };
                let whole = |error: anyhow::Error| error.context(format!("the column {name}"));
                let values = match group.get_column_reader(number)? {
                    ColumnReader::DoubleColumnReader(reader) => {
                        Values::Float(all(reader, rows, levels, before).map_err(whole)?)
                    }
                    ColumnReader::FloatColumnReader(reader) => {
                        let values = all(reader, rows, levels, before).map_err(whole)?;
                        Values::Float(values.into_iter().map(f64::from).collect())
                    }
                    ColumnReader::Int64ColumnReader(reader) => {
                        Values::Integer(all(reader, rows, levels, before).map_err(whole)?)
                    }
                    ColumnReader::Int32ColumnReader(reader) => {
                        let values = all(reader, rows, levels, before).map_err(whole)?;
                        Values::Integer(values.into_iter().map(wide).collect())
                    }
                    ColumnReader::ByteArrayColumnReader(reader) => {
                        let values = all(reader, rows, levels, before).map_err(whole)?;
                        match texts(&values) {
                            Ok(texts) => Values::Text(texts),
                            Err(_) => continue,
                        }
                    }
                    _ => continue,
                };
                columns.insert(name, values);
            }
            each(columns, before)?;
            before += rows;
        }
        Ok(())
    };
    let mut inner = inner;
    let read = inner().map_err(|error| match error.to_string().contains("Disabled feature") {
        true => error
            .context("its codec is none of snappy, zstd, gzip and lz4: write it with one of these"),
        false => error,
    });
    read.with_context(|| format!("reading {}", file.display()))
}

/// All values of a column in a group of rows, of which `before` rows stand before it.
fn all<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    levels: i16,
    before: usize,
) -> anyhow::Result<Vec<T::T>> {
    let mut values = Vec::with_capacity(rows.min(AT_ONCE));
    let mut defined = Vec::new();
    let mut read = 0;
    while read < rows {
        let most = (rows - read).min(AT_ONCE);
        defined.clear();
        let given = (levels > 0).then_some(&mut defined);
        let (records, ..) = reader.read_records(most, given, None, &mut values)?;
        if let Some(missing) = defined.iter().position(|level| *level < levels) {
            bail!(
                "row {}: the value is missing; leave the row out, or give one",
                before + read + missing + 1
            );
        }
        if records == 0 {
            bail!("{read} values for {rows} rows");
        }
        read += records;
    }
    Ok(values)
}

fn texts(values: &[ByteArray]) -> anyhow::Result<Vec<Arc<str>>> {
    let mut all: Vec<Arc<str>> = Vec::with_capacity(values.len());
    for value in values {
        let text = value.as_utf8()?;
        match all.last() {
            Some(last) if **last == *text => all.push(Arc::clone(last)),
            _ => all.push(text.into()),
        }
    }
    Ok(all)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("table.parquet");
        let name: Arc<str> = "person-1".into();
        let first = vec![
            ("time_ns".to_owned(), Values::Integer(vec![5, 3])),
            ("value".to_owned(), Values::Float(vec![0.1, f64::NAN])),
            ("who".to_owned(), Values::Text(vec![name.clone(), name])),
        ];
        let mut writer = Writer::new(File::create(&file).unwrap(), first).unwrap();
        let more = vec![
            Values::Integer(vec![i64::MAX]),
            Values::Float(vec![f64::INFINITY]),
            Values::Text(vec!["é".into()]),
        ];
        writer.push(more).unwrap();
        writer.finish().unwrap();
        let mut groups = Vec::new();
        read_columns(&file, |columns, before| {
            assert_eq!(before, 0);
            groups.push(columns);
            Ok(())
        })
        .unwrap();
        assert_eq!(groups.len(), 1);
        let columns = groups.pop().unwrap();
        assert_eq!(columns["time_ns"], Values::Integer(vec![5, 3, i64::MAX]));
        let Values::Float(values) = &columns["value"] else { panic!("no numbers") };
        assert_eq!((values[0], values[2]), (0.1, f64::INFINITY));
        assert!(values[1].is_nan());
        let Values::Text(texts) = &columns["who"] else { panic!("no text") };
        assert_eq!(
            texts.iter().map(|text| &**text).collect::<Vec<_>>(),
            ["person-1", "person-1", "é"]
        );
    }

    /// A column that may lack values, as pandas (gzip and others) and polars (zstd) write them.
    fn foreign(file: &Path, codec: Compression, values: &[Option<i64>]) {
        let field = Type::primitive_type_builder("time_ns", Physical::INT64)
            .with_repetition(Repetition::OPTIONAL)
            .build()
            .unwrap();
        let schema = Type::group_type_builder("schema").with_fields(vec![field.into()]);
        let properties = WriterProperties::builder().set_compression(codec).build();
        let to = File::create(file).unwrap();
        let schema = schema.build().unwrap();
        let mut writer = SerializedFileWriter::new(to, schema.into(), properties.into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let there: Vec<i64> = values.iter().copied().flatten().collect();
        let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        column.typed::<Int64Type>().write_batch(&there, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn tables_of_other_programs_are_read_if_no_value_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("table.parquet");
        let zstd = Compression::ZSTD(Default::default());
        let gzip = Compression::GZIP(Default::default());
        for codec in [zstd, gzip, Compression::LZ4_RAW, Compression::UNCOMPRESSED] {
            foreign(&file, codec, &[Some(5), Some(-3)]);
            let mut found = Vec::new();
            read_columns(&file, |mut columns, _| {
                found.extend(columns.remove("time_ns"));
                Ok(())
            })
            .unwrap();
            assert_eq!(found, [Values::Integer(vec![5, -3])]);
        }
        foreign(&file, zstd, &[Some(5), None, Some(7)]);
        let error = format!("{:#}", read_columns(&file, |_, _| Ok(())).unwrap_err());
        assert!(error.contains("the column time_ns: row 2: the value is missing"), "{error}");
    }

    #[test]
    fn columns_of_unequal_length_are_refused() {
        let columns = vec![
            ("a".to_owned(), Values::Integer(vec![1, 2])),
            ("b".to_owned(), Values::Integer(vec![1])),
        ];
        let error = Writer::new(Vec::new(), columns).unwrap().finish().unwrap_err();
        assert!(error.to_string().contains("column b"), "{error}");
    }
}
