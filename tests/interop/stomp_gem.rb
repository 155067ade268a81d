# encoding: utf-8
# What is expected of any STOMP broker we would use, through Ruby's stomp gem.
#
# Usage: stomp_gem.rb HOST:PORT check | hold RUN | resume RUN
# `check` prints one line per check (which versions have it: the table CHECKS) and ends with
# `passed N failed M`. `hold` leaves messages behind and waits for the broker to die; `resume`
# looks for them.

require "securerandom"
require "stomp"

TIMEOUT_S = 20.0 # Longest wait for something that must come.
SILENCE_S = 0.7 # How long nothing must come where nothing is allowed to.
HEART_BEAT_MS = 1_000
# Headers that name a durable subscription, of ActiveMQ and of Artemis.
DURABLE = ["activemq.subscriptionName", "durable-subscription-name"].freeze
PREFETCH = ["activemq.prefetchSize", "prefetch-count"].freeze

LOGIN = ENV["STOMP_LOGIN"]
PASSCODE = ENV["STOMP_PASSCODE"]
VHOST = ENV.fetch("STOMP_VHOST", "/")
RUN = ENV.fetch("STOMP_RUN", Process.pid.to_s)

# The gem reads headers in the locale's encoding; a minimal system has none that knows UTF-8.
Encoding.default_external = Encoding::UTF_8
Thread.report_on_exception = false
$stdout.sync = true
# It warns when a connection ends that a check ends on purpose.
$VERBOSE = nil

class Failure < StandardError; end

def expect(condition, text)
  raise Failure, text unless condition
end

$counter = 0
def count = $counter += 1

# A queue that can be waited for with a limit; Ruby 3.1 has none.
class Waiting
  def initialize
    @items = []
    @lock = Mutex.new
    @came = ConditionVariable.new
  end

  def push(item)
    @lock.synchronize do
      @items.push(item)
      @came.signal
    end
  end

  # The next item, or nil after `seconds`.
  def take(seconds)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds
    @lock.synchronize do
      while @items.empty?
        left = deadline - Process.clock_gettime(Process::CLOCK_MONOTONIC)
        return nil if left <= 0

        @came.wait(@lock, left)
      end
      @items.shift
    end
  end
end

def hosts(address)
  host, _, port = address.rpartition(":")
  [{ login: LOGIN, passcode: PASSCODE, host: host, port: port.to_i }]
end

def connect_headers(version, heart_beats: nil, client_id: nil)
  headers = {}
  # Its 1.0 says nothing of versions.
  headers = { "accept-version": version, host: VHOST } unless version == "1.0"
  headers[:"heart-beat"] = heart_beats if heart_beats
  headers[:"client-id"] = client_id if client_id
  headers
end

# One connection (Stomp::Connection), with a thread that sorts what comes and waits that name what
# did not.
class Client
  attr_reader :connection, :errors, :ended

  def initialize(address, version = "1.2", **options)
    @version = version
    @connection = Stomp::Connection.new(
      hosts: hosts(address), reliable: false, connect_headers: connect_headers(version, **options)
    )
    greeting = @connection.connection_frame
    expect(greeting&.command == "CONNECTED", "instead of CONNECTED: #{greeting}")
    @messages = Hash.new { |all, key| all[key] = Waiting.new }
    @receipts, @errors, @ended = Waiting.new, Waiting.new, Waiting.new
    @reader = Thread.new { read }
  end

  def read
    while (frame = @connection.receive)
      case frame.command
      when "MESSAGE" then @messages[frame.headers["subscription"]].push(frame)
      when "RECEIPT" then @receipts.push(frame.headers["receipt-id"])
      when "ERROR" then @errors.push(frame)
      end
    end
  rescue StandardError => e
    @failure = e
  ensure
    @ended.push(true)
  end

  def wait_receipt(receipt)
    got = @receipts.take(TIMEOUT_S)
    expect(got == receipt, "receipt #{got.inspect} instead of #{receipt}#{trouble}")
  end

  def trouble
    error = @errors.take(0)
    ": #{error || @failure}" if error || @failure
  end

  # Runs a command with a receipt header and waits for the receipt.
  def receipted
    receipt = "r#{count}"
    yield receipt
    wait_receipt(receipt)
  end

  def send(address, body, headers = {})
    receipted do |receipt|
      extra = { persistent: "true", receipt: receipt }.merge(headers)
      @connection.publish(address, body, extra)
    end
  end

  def subscribe(address, ack = "auto", prefetch: nil, durable: nil)
    name = "sub#{count}"
    headers = { id: name, ack: ack }
    PREFETCH.each { |key| headers[key.to_sym] = prefetch.to_s } if prefetch
    DURABLE.each { |key| headers[key.to_sym] = durable } if durable
    receipted { |receipt| @connection.subscribe(address, headers.merge(receipt: receipt), name) }
    name
  end

  def unsubscribe(address, name, durable: nil)
    headers = { id: name }
    DURABLE.each { |key| headers[key.to_sym] = durable } if durable
    receipted { |receipt| @connection.unsubscribe(address, headers.merge(receipt: receipt), name) }
  end

  def receive(subscription)
    frame = @messages[subscription].take(TIMEOUT_S)
    expect(frame, "no message#{trouble}")
    frame
  end

  def receive_nothing(subscription)
    frame = @messages[subscription].take(SILENCE_S)
    expect(frame.nil?, "unexpected message #{frame&.body.to_s[0, 40].inspect} #{frame&.headers}")
  end

  # ACK or NACK with receipt, in the words of the version.
  def settle(frame, verb = :ack)
    headers = @version == "1.1" ? { subscription: frame.headers["subscription"] } : {}
    id = frame.headers[@version == "1.2" ? "ack" : "message-id"]
    receipted { |receipt| @connection.public_send(verb, id, headers.merge(receipt: receipt)) }
  end

  # Reads nothing for so long: only then does the gem count the heart-beats that come.
  def idle(seconds)
    @reader.kill.join
    sleep(seconds)
    @reader = Thread.new { read }
  end

  # A command there is none of; the gem sends such only from inside. It writes line by line, so the
  # answer, and with it the end of the connection, may come before the last one.
  def nonsense
    @connection.__send__(:transmit, "NONSENSE", {})
  rescue IOError, SystemCallError
    nil
  end

  # DISCONNECT with receipt, which must come: the gem itself reads it when nobody else reads.
  def close
    @reader.kill.join
    receipt = "d#{count}"
    @connection.disconnect(receipt: receipt)
    got = @connection.disconnect_receipt&.headers&.fetch("receipt-id", nil)
    expect(got == receipt, "receipt #{got.inspect} of DISCONNECT")
  end

  # Ends the connection without a word.
  def drop
    @reader.kill.join
    @connection.__send__(:close_socket)
  end
end

def fresh(kind = "queue") = "/#{kind}/rb-#{RUN}-#{count}"
def again?(frame) = frame.headers["redelivered"] == "true"
def bodies(number) = Array.new(number) { |index| "message #{index}" }

# ---- checks: each takes the address and a version ------------------------------------------------

def version_is_negotiated(address, version)
  client = Client.new(address, version)
  got = client.connection.connection_frame.headers.fetch("version", "1.0")
  expect(got == version, "CONNECTED says #{got}")
  client.close
end

def bodies_come_back_byte_for_byte(address, version)
  every_byte = (0..255).to_a.pack("C*") * 5
  cases = {
    "text" => "hello", "empty" => "", "UTF-8" => "gr\u00fc\u00dfe \u2603 \u{1f600}",
    "NULs" => "\0a\0\0b\0", "line ends" => "\r\n\n\r", "every byte" => every_byte,
    "1 MiB" => SecureRandom.bytes(1 << 20)
  }
  cases["10 MiB"] = SecureRandom.bytes(10 << 20) if version == "1.2"
  client = Client.new(address, version)
  where = fresh
  subscription = client.subscribe(where)
  cases.each do |name, body|
    client.send(where, body)
    got = client.receive(subscription)
    same = got.body.b == body.b
    expect(same, "#{name}: #{got.body.bytesize} other bytes instead of #{body.bytesize}")
    length = got.headers["content-length"]
    expect([nil, body.bytesize.to_s].include?(length), "#{name}: content-length #{length}")
  end
  client.close
end

def volatile_messages_pass_too(address, version)
  client = Client.new(address, version)
  where = fresh
  subscription = client.subscribe(where)
  client.send(where, "volatile", persistent: "false")
  expect(client.receive(subscription).body == "volatile", "another body")
  client.close
end

def headers_round_trip(address, version)
  # It takes \\n for the two characters \ and line end, not \ and n: so there is none of these.
  values = {
    "colon" => "a:b:c", "lines" => "one\ntwo", "slash" => "back\\slash", "utf" => "\u00e9\u2603",
    "key:with colon" => "x"
  }
  values["return"] = "a\rb" if version == "1.2"
  client = Client.new(address, version)
  where = fresh
  subscription = client.subscribe(where)
  client.send(where, "x", values.transform_keys(&:to_sym))
  got = client.receive(subscription)
  values.each do |key, value|
    seen = got.headers[key]
    expect(seen == value, "#{key}: #{seen.inspect} not #{value.inspect}")
  end
  client.close
end

def auto_takes_messages_out(address, version)
  client = Client.new(address, version)
  where = fresh
  bodies(10).each { |body| client.send(where, body) }
  subscription = client.subscribe(where)
  bodies(10).each { |body| expect(client.receive(subscription).body == body, "not in order") }
  client.close
  client = Client.new(address, version)
  client.receive_nothing(client.subscribe(where))
  client.close
end

def client_mode_is_cumulative(address, version)
  client = Client.new(address, version)
  where = fresh
  bodies(10).each { |body| client.send(where, body) }
  subscription = client.subscribe(where, "client")
  frames = Array.new(10) { client.receive(subscription) }
  expect(frames.none? { |frame| again?(frame) }, "redelivered at first delivery")
  client.settle(frames[5])
  client.drop
  client = Client.new(address, version)
  subscription = client.subscribe(where, "client")
  last = nil
  bodies(10).drop(6).each do |body|
    last = client.receive(subscription)
    expect(last.body == body, "#{last.body} instead of #{body}")
    expect(again?(last), "#{body} came again without redelivered:true")
  end
  client.settle(last)
  client.receive_nothing(subscription)
  client.close
end

def individual_mode_settles_one(address, version)
  client = Client.new(address, version)
  where = fresh
  bodies(10).each { |body| client.send(where, body) }
  subscription = client.subscribe(where, "client-individual")
  frames = Array.new(10) { client.receive(subscription) }
  frames.each_with_index { |frame, index| client.settle(frame) if index.odd? }
  client.drop
  client = Client.new(address, version)
  subscription = client.subscribe(where, "client-individual")
  bodies(10).each_with_index.select { |_, index| index.even? }.each do |body, _|
    frame = client.receive(subscription)
    expect(frame.body == body && again?(frame), "#{frame.body} #{frame.headers}")
    client.settle(frame)
  end
  client.receive_nothing(subscription)
  client.close
end

def nack_brings_it_back(address, version)
  client = Client.new(address, version)
  where = fresh
  client.send(where, "refused once")
  subscription = client.subscribe(where, "client-individual")
  first = client.receive(subscription)
  expect(!again?(first), "redelivered at first delivery")
  client.settle(first, :nack)
  second = client.receive(subscription)
  expect(second.body == "refused once" && again?(second), second.headers.to_s)
  client.settle(second)
  client.receive_nothing(subscription)
  client.close
end

def consumers_compete(address, version)
  where = fresh
  ack = version == "1.0" ? "client" : "client-individual"
  consumers = Array.new(2) { Client.new(address, version) }
  subscriptions = consumers.map { |consumer| consumer.subscribe(where, ack, prefetch: 1) }
  producer = Client.new(address, version)
  bodies(40).each { |body| producer.send(where, body) }
  seen = []
  while seen.size < 40
    consumers.each_with_index do |consumer, index|
      break if seen.size == 40

      frame = consumer.receive(subscriptions[index])
      seen.push(frame.body)
      consumer.settle(frame)
    end
  end
  expect(seen.sort == bodies(40).sort, "not each exactly once")
  consumers.zip(subscriptions) { |consumer, name| consumer.receive_nothing(name) }
  [*consumers, producer].each(&:close)
end

def topics_reach_everybody_who_is_there(address, version)
  where = fresh("topic")
  listeners = Array.new(2) { Client.new(address, version) }
  subscriptions = listeners.map { |listener| listener.subscribe(where) }
  producer = Client.new(address, version)
  bodies(20).each { |body| producer.send(where, body) }
  listeners.zip(subscriptions) do |listener, name|
    bodies(20).each do |body|
      got = listener.receive(name).body
      expect(got == body, "#{got} instead of #{body}")
    end
  end
  late = Client.new(address, version)
  late.receive_nothing(late.subscribe(where))
  [*listeners, producer, late].each(&:close)
end

def durable_subscriptions_collect_until_told_to_go(address, version)
  where = fresh("topic")
  name = "d#{count}"
  whose = "rb-#{RUN}-#{name}"
  client = Client.new(address, version, client_id: whose)
  client.subscribe(where, durable: name)
  client.close
  producer = Client.new(address, version)
  bodies(10).each { |body| producer.send(where, body) }
  subscription = nil
  [10, 0].each do |left|
    client = Client.new(address, version, client_id: whose)
    subscription = client.subscribe(where, durable: name)
    bodies(left).each do |body|
      got = client.receive(subscription).body
      expect(got == body, "#{got} instead of #{body}")
    end
    client.receive_nothing(subscription)
    client.close unless left.zero?
  end
  client.unsubscribe(where, subscription, durable: name)
  producer.send(where, "nobody")
  client.receive_nothing(client.subscribe(where, durable: name))
  client.close
  producer.close
end

def unsubscribe_stops_deliveries(address, version)
  client = Client.new(address, version)
  where = fresh
  subscription = client.subscribe(where)
  client.send(where, "first")
  client.receive(subscription)
  client.unsubscribe(where, subscription)
  client.send(where, "second")
  client.receive_nothing(subscription)
  again = client.subscribe(where)
  expect(client.receive(again).body == "second", "the second message is gone")
  client.close
end

def heart_beats_keep_idle_connections(address, version)
  client = Client.new(address, version, heart_beats: "#{HEART_BEAT_MS},#{HEART_BEAT_MS}")
  offer = client.connection.connection_frame.headers.fetch("heart-beat", "0,0").split(",")
  expect(!offer.include?("0"), "the broker offers #{offer}")
  slowest = [HEART_BEAT_MS, *offer.map(&:to_i)].max / 1000.0
  client.idle(4 * slowest)
  sent, seen = client.connection.hbsend_count, client.connection.hbrecv_count
  expect(sent >= 2 && seen >= 2, "#{sent} heart-beats sent and #{seen} seen in 4 intervals")
  where = fresh
  subscription = client.subscribe(where)
  client.send(where, "alive")
  client.receive(subscription)
  client.close
end

def an_error_ends_its_own_connection_only(address, version)
  neighbour = Client.new(address, version)
  where = fresh
  subscription = neighbour.subscribe(where)
  client = Client.new(address, version)
  client.nonsense
  expect(client.errors.take(TIMEOUT_S), "no ERROR")
  expect(client.ended.take(TIMEOUT_S), "the connection stays open")
  neighbour.send(where, "still here")
  expect(neighbour.receive(subscription).body == "still here", "the neighbour is disturbed")
  neighbour.close
end

def disconnect_is_confirmed(address, version)
  client = Client.new(address, version)
  where = fresh
  client.send(where, "before")
  client.close
  client = Client.new(address, version)
  expect(client.receive(client.subscribe(where)).body == "before", "another body")
  client.close
end

# Stomp::Client, the gem's other face: blocks for messages and receipts, called by its own thread.
def blocks_are_called(address, version)
  client = Stomp::Client.new(
    hosts: hosts(address), reliable: false, connect_headers: connect_headers(version)
  )
  where = fresh
  messages, receipts = Waiting.new, Waiting.new
  client.subscribe(where, ack: "client") { |message| messages.push(message) }
  client.publish(where, "to a block", persistent: "true") { |receipt| receipts.push(receipt) }
  expect(receipts.take(TIMEOUT_S), "no receipt of SEND")
  message = messages.take(TIMEOUT_S)
  expect(message&.body == "to a block", "no message")
  client.ack(message) { |receipt| receipts.push(receipt) }
  expect(receipts.take(TIMEOUT_S), "no receipt of ACK")
  client.close
  late = Client.new(address, version)
  late.receive_nothing(late.subscribe(where))
  late.close
end

ALL = ["1.0", "1.1", "1.2"].freeze
SINCE_1_1 = ["1.1", "1.2"].freeze
CHECKS = {
  version_is_negotiated: ALL,
  bodies_come_back_byte_for_byte: ALL,
  volatile_messages_pass_too: ALL,
  headers_round_trip: SINCE_1_1,
  auto_takes_messages_out: ALL,
  client_mode_is_cumulative: ALL,
  individual_mode_settles_one: SINCE_1_1,
  nack_brings_it_back: SINCE_1_1,
  consumers_compete: ALL,
  topics_reach_everybody_who_is_there: ALL,
  durable_subscriptions_collect_until_told_to_go: ALL,
  unsubscribe_stops_deliveries: ALL,
  heart_beats_keep_idle_connections: SINCE_1_1,
  an_error_ends_its_own_connection_only: ALL,
  disconnect_is_confirmed: ALL,
  blocks_are_called: ALL
}.freeze

def check(address)
  passed = failed = 0
  ALL.each do |version|
    CHECKS.each do |name, versions|
      next unless versions.include?(version)

      begin
        __send__(name, address, version)
        passed += 1
        puts "ok   stomp gem #{version} #{name}"
      rescue StandardError => e # every failure is named, the others go on
        failed += 1
        puts "FAIL stomp gem #{version} #{name}: #{e.class}: #{e.message}"
      end
    end
  end
  puts "passed #{passed} failed #{failed}"
  failed.zero? ? 0 : 1
end

# ---- the restart in the middle -------------------------------------------------------------------

# Bodies that can be made again: small, with NULs, and two larger than a journal block.
def kept_body(index)
  size = { 7 => 100_000, 13 => 700_000 }.fetch(index, 40 + index)
  "#{index}:".b + Array.new(size) { |at| (index * 31 + at) % 256 }.pack("C*")
end

def hold(address, run)
  held, untouched = "/queue/rb-held-#{run}", "/queue/rb-untouched-#{run}"
  consumer, producer = Client.new(address), Client.new(address)
  20.times do |index|
    producer.send(held, kept_body(index))
    producer.send(untouched, kept_body(index))
  end
  subscription = consumer.subscribe(held, "client-individual", prefetch: 100)
  frames = Array.new(20) { consumer.receive(subscription) }
  frames.first(5).each { |frame| consumer.settle(frame) }
  puts "holding"
  consumer.ended.take(60)
  0
end

def resume(address, run)
  client = Client.new(address)
  held = client.subscribe("/queue/rb-held-#{run}", "client-individual")
  (5...20).each do |index|
    frame = client.receive(held)
    expect(frame.body.b == kept_body(index), "held #{index}: got #{frame.body[0, 20].inspect}")
    expect(again?(frame), "held #{index}: no redelivered:true")
    client.settle(frame)
  end
  client.receive_nothing(held)
  untouched = client.subscribe("/queue/rb-untouched-#{run}")
  20.times do |index|
    frame = client.receive(untouched)
    expect(frame.body.b == kept_body(index), "untouched #{index}: got #{frame.body[0, 20].inspect}")
  end
  client.receive_nothing(untouched)
  client.close
  puts "passed 1 failed 0"
  0
end

address, verb, run = ARGV
begin
  code = { "check" => -> { check(address) }, "hold" => -> { hold(address, run) },
           "resume" => -> { resume(address, run) } }.fetch(verb).call
rescue Failure => e
  puts "FAIL stomp gem #{ARGV.drop(1).join(' ')}: #{e.message}"
  code = 1
end
exit!(code) # threads of the gem may still wait on sockets
