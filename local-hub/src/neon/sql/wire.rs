//! One connection that speaks Postgres' extended protocol with text on both sides: parameters of no declared type, results as
//! Postgres prints them. That is what SQL over HTTP promises, and what a driver with binary results cannot give.
use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::IsNull;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Bytes of values that one answer may hold, as on Neon.
pub(super) const ANSWER_MAX: usize = 10 << 20;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the connection to Postgres: {0}")]
    Io(#[from] std::io::Error),
    #[error("Postgres refused")]
    Refused(Box<PgMessage>),
    #[error("the answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("Postgres answered out of turn")]
    OutOfTurn,
    #[error("COPY needs a connection of its own")]
    Copy,
}

/// An error as Postgres words it, by the letters of its fields.
#[derive(Debug)]
pub(super) struct PgMessage(Map<String, Value>);

impl PgMessage {
    fn read(body: &ErrorResponseBody) -> Result<Box<Self>, WireError> {
        let mut fields = Map::new();
        let mut each = body.fields();
        while let Some(field) = each.next()? {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            fields.insert(char::from(field.type_()).to_string(), value.into());
        }
        Ok(Box::new(Self(fields)))
    }

    pub(super) fn field(&self, letter: char) -> Value {
        self.0.get(letter.to_string().as_str()).cloned().unwrap_or(Value::Null)
    }

    pub(super) fn is_failed_login(&self) -> bool {
        self.field('C') == "28P01"
    }
}

pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_oid: u32,
    pub(super) table_oid: u32,
    pub(super) column_id: i16,
    pub(super) type_size: i16,
    pub(super) type_modifier: i32,
}

/// What one statement answered.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Option<String>>>,
    pub(super) tag: String,
}

pub(super) struct Wire {
    stream: UnixStream,
    buffer: BytesMut,
    /// Bytes of values since the connection began.
    answered: usize,
}

impl Wire {
    pub(super) async fn connect(
        socket: &std::path::Path,
        user: &str,
        password: &str,
        database: &str,
        application: &str,
    ) -> Result<Self, WireError> {
        let mut wire = Self { stream: UnixStream::connect(socket).await?, buffer: BytesMut::new(), answered: 0 };
        let mut out = BytesMut::new();
        let parameters =
            [("user", user), ("database", database), ("application_name", application), ("client_encoding", "UTF8")];
        frontend::startup_message(parameters, &mut out)?;
        wire.send(&out).await?;
        wire.log_in(password).await?;
        wire.until_ready().await?;
        Ok(wire)
    }

    async fn log_in(&mut self, password: &str) -> Result<(), WireError> {
        let mut scram = None;
        loop {
            let mut out = BytesMut::new();
            match self.next().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256))? {
                        return Err(WireError::OutOfTurn);
                    }
                    let begun = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, begun.message(), &mut out)?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or(WireError::OutOfTurn)?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    scram.as_mut().ok_or(WireError::OutOfTurn)?.finish(body.data())?;
                }
                Message::ErrorResponse(body) => return Err(WireError::Refused(PgMessage::read(&body)?)),
                _ => return Err(WireError::OutOfTurn),
            }
            self.send(&out).await?;
        }
    }

    async fn until_ready(&mut self) -> Result<(), WireError> {
        loop {
            match self.next().await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(WireError::Refused(PgMessage::read(&body)?)),
                Message::ParameterStatus(_) | Message::BackendKeyData(_) | Message::NoticeResponse(_) => {}
                _ => return Err(WireError::OutOfTurn),
            }
        }
    }

    /// One statement. After an error the connection is of no further use to the caller, except for [`Wire::execute`]ing a
    /// ROLLBACK: it has been read up to where Postgres is ready again.
    pub(super) async fn execute(&mut self, sql: &str, params: &[Option<String>]) -> Result<Answer, WireError> {
        let mut out = BytesMut::new();
        frontend::parse("", sql, [], &mut out)?;
        let text = |value: &Option<String>, buffer: &mut BytesMut| match value {
            None => Ok(IsNull::Yes),
            Some(value) => {
                buffer.extend_from_slice(value.as_bytes());
                Ok(IsNull::No)
            }
        };
        frontend::bind("", "", [], params, text, [], &mut out).map_err(|error| match error {
            frontend::BindError::Conversion(_) => std::io::Error::from(std::io::ErrorKind::InvalidInput),
            frontend::BindError::Serialization(error) => error,
        })?;
        frontend::describe(b'P', "", &mut out)?;
        frontend::execute("", 0, &mut out)?;
        frontend::sync(&mut out);
        self.send(&out).await?;

        let mut answer = Answer::default();
        let mut error = None;
        loop {
            match self.next().await? {
                Message::ReadyForQuery(_) => return error.map_or(Ok(answer), Err),
                Message::RowDescription(body) => answer.columns = columns(&body)?,
                Message::DataRow(body) => answer.rows.push(self.row(&body)?),
                Message::CommandComplete(body) => answer.tag = body.tag()?.to_owned(),
                Message::ErrorResponse(body) => error = Some(WireError::Refused(PgMessage::read(&body)?)),
                // The connection is dropped: Postgres waits for data, or sends it without end.
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => return Err(WireError::Copy),
                Message::ParseComplete
                | Message::BindComplete
                | Message::NoData
                | Message::EmptyQueryResponse
                | Message::NoticeResponse(_)
                | Message::NotificationResponse(_)
                | Message::ParameterStatus(_) => {}
                _ => return Err(WireError::OutOfTurn),
            }
        }
    }

    fn row(&mut self, body: &DataRowBody) -> Result<Vec<Option<String>>, WireError> {
        self.answered += body.buffer().len();
        if self.answered > ANSWER_MAX {
            return Err(WireError::TooLarge);
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&body.buffer()[range]).into_owned();
        Ok(body.ranges().map(|range| Ok(range.map(text))).collect()?)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        Ok(self.stream.write_all(bytes).await?)
    }

    async fn next(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(message) = Message::parse(&mut self.buffer)? {
                return Ok(message);
            }
            self.buffer.reserve(CHUNK);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn columns(body: &RowDescriptionBody) -> Result<Vec<Column>, WireError> {
    let column = |field: postgres_protocol::message::backend::Field<'_>| {
        Ok(Column {
            name: field.name().to_owned(),
            type_oid: field.type_oid(),
            table_oid: field.table_oid(),
            column_id: field.column_id(),
            type_size: field.type_size(),
            type_modifier: field.type_modifier(),
        })
    };
    Ok(body.fields().map(column).collect()?)
}
