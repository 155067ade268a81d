# What is expected of any STOMP broker we would use, through Perl's Net::Stomp.
#
# Usage: net_stomp.pl HOST:PORT check | hold RUN | resume RUN
# `check` prints one line per check (which versions have it: the table @CHECKS) and ends with
# `passed N failed M`. `hold` leaves messages behind and waits for the broker to die; `resume`
# looks for them.
#
# Net::Stomp speaks STOMP 1.0 and passes on the headers it is given, so the versions after it work
# as far as headers go. What it cannot say at all stands in @CHECKS with the reason.

use strict;
use warnings;

use Net::Stomp;
use Time::HiRes qw(sleep time);

my $TIMEOUT_S = 20;     # Longest wait for something that must come.
my $SILENCE_S = 0.7;    # How long nothing must come where nothing is allowed to.
my $HEART_BEAT_MS = 500;

# Headers that name a durable subscription, of ActiveMQ and of Artemis.
my @DURABLE = qw(activemq.subscriptionName durable-subscription-name);
my @PREFETCH = qw(activemq.prefetchSize prefetch-count);

my $VHOST = $ENV{STOMP_VHOST} // '/';
my $RUN = $ENV{STOMP_RUN} // $$;
my ($HOST, $PORT) = ($ARGV[0] // '') =~ /^(.*):(\d+)$/ or die "which HOST:PORT?\n";

$| = 1;
# A check dies with what does not hold, and the next one goes on.
sub expect { my ($condition, $text) = @_; die "$text\n" unless $condition; return }

my $counter = 0;
sub count { return ++$counter }
sub fresh { my $kind = shift // 'queue'; return "/$kind/pl-$RUN-" . count() }
sub is_again { return ($_[0]->headers->{redelivered} // '') eq 'true' }
sub bodies { return map { "message $_" } 0 .. $_[0] - 1 }

# One connection, whose frames are sorted while somebody waits for one of them.
package Client {
    sub new {
        my ($class, $version, %more) = @_;
        my $stomp = Net::Stomp->new({ hostname => $HOST, port => $PORT, reconnect_attempts => 1 });
        my %headers = (%more);
        @headers{qw(login passcode)} = @ENV{qw(STOMP_LOGIN STOMP_PASSCODE)} if $ENV{STOMP_LOGIN};
        # A client of 1.0 says nothing of versions.
        @headers{qw(accept-version host)} = ($version, $VHOST) if $version ne '1.0';
        my $greeting = $stomp->connect(\%headers);
        main::expect($greeting && $greeting->command eq 'CONNECTED', 'no CONNECTED');
        my %self = (
            stomp => $stomp, version => $version, greeting => $greeting->headers,
            messages => {}, receipts => [], errors => [],
        );
        return bless \%self, $class;
    }

    # Takes the first of a list, reading frames until it has one; undef after `seconds` or the end.
    sub wait_for {
        my ($self, $list, $seconds) = @_;
        my $deadline = main::time() + $seconds;
        while (!@$list && !$self->{is_ended}) {
            my $left = $deadline - main::time();
            return if $left <= 0;
            my $frame = $self->{stomp}->receive_frame({ timeout => $left });
            if ($frame) { $self->sort_frame($frame) }
            else { $self->{is_ended} = !$self->{stomp}->socket->opened }
        }
        return shift @$list;
    }

    sub sort_frame {
        my ($self, $frame) = @_;
        my $headers = $frame->headers;
        if ($frame->command eq 'MESSAGE') {
            push @{ $self->{messages}{ $headers->{subscription} } }, $frame;
        } elsif ($frame->command eq 'RECEIPT') {
            push @{ $self->{receipts} }, $headers->{'receipt-id'};
        } else {
            push @{ $self->{errors} }, $headers->{message} // $frame->command;
        }
        return;
    }

    # Runs a command with a receipt header and waits for the receipt.
    sub receipted {
        my ($self, $command) = @_;
        my $receipt = 'r' . main::count();
        $command->($receipt);
        my $got = $self->wait_for($self->{receipts}, $TIMEOUT_S) // 'none';
        main::expect($got eq $receipt, "receipt $got instead of $receipt: @{ $self->{errors} }");
        return;
    }

    sub send {
        my ($self, $address, $body, %headers) = @_;
        $self->receipted(sub {
            $self->{stomp}->send({
                destination => $address, body => $body, persistent => 'true',
                bytes_message => 1, receipt => $_[0], %headers,
            });
        });
        return;
    }

    sub subscribe {
        my ($self, $address, $ack, %more) = @_;
        my $id = 'sub' . main::count();
        my %headers = (id => $id, destination => $address, ack => $ack // 'auto');
        @headers{@PREFETCH} = ($more{prefetch}) x @PREFETCH if $more{prefetch};
        @headers{@DURABLE} = ($more{durable}) x @DURABLE if $more{durable};
        $self->{messages}{$id} = [];
        $self->receipted(sub { $self->{stomp}->subscribe({ %headers, receipt => $_[0] }) });
        return $id;
    }

    sub unsubscribe {
        my ($self, $id, %more) = @_;
        my %headers = (id => $id);
        @headers{@DURABLE} = ($more{durable}) x @DURABLE if $more{durable};
        $self->receipted(sub { $self->{stomp}->unsubscribe({ %headers, receipt => $_[0] }) });
        return;
    }

    sub receive {
        my ($self, $id) = @_;
        my $frame = $self->wait_for($self->{messages}{$id}, $TIMEOUT_S);
        main::expect($frame, "no message: @{ $self->{errors} }");
        return $frame;
    }

    sub receive_nothing {
        my ($self, $id) = @_;
        my $frame = $self->wait_for($self->{messages}{$id}, $SILENCE_S);
        main::expect(!$frame, 'unexpected message ' . substr($frame ? $frame->body : '', 0, 40));
        return;
    }

    # ACK or NACK with receipt; it says `message-id` by itself, what else a version wants is given.
    sub settle {
        my ($self, $frame, $verb) = @_;
        $verb //= 'ack';
        my %headers = (frame => $frame);
        $headers{subscription} = $frame->headers->{subscription} if $self->{version} eq '1.1';
        $headers{id} = $frame->headers->{ack} if $self->{version} eq '1.2';
        $self->receipted(sub { $self->{stomp}->$verb({ %headers, receipt => $_[0] }) });
        return;
    }

    # DISCONNECT with receipt, which must come: its own `disconnect` does not wait for one.
    sub close {
        my ($self) = @_;
        $self->receipted(sub { $self->command('DISCONNECT', { receipt => $_[0] }) });
        $self->drop;
        return;
    }

    sub command {
        my ($self, $command, $headers) = @_;
        my $frame = Net::Stomp::Frame->new({ command => $command, headers => $headers });
        $self->{stomp}->send_frame($frame);
        return;
    }

    # Ends the connection without a word.
    sub drop { my ($self) = @_; $self->{stomp}->socket->close; return }
}

# ---- checks: each takes a version ----------------------------------------------------------------

sub version_is_negotiated {
    my ($version) = @_;
    my $client = Client->new($version);
    my $got = $client->{greeting}{version} // '1.0';
    expect($got eq $version, "CONNECTED says $got");
    $client->close;
}

sub random_bytes {
    my ($size) = @_;
    open my $random, '<:raw', '/dev/urandom' or die "$!\n";
    read($random, my $bytes, $size) == $size or die "too few random bytes\n";
    return $bytes;
}

sub bodies_come_back_byte_for_byte {
    my ($version) = @_;
    my @cases = (
        ['text', 'hello'], ['empty', ''],
        ['UTF-8', "gr\xc3\xbc\xc3\x9fe \xe2\x98\x83 \xf0\x9f\x98\x80"],
        ['NULs', "\0a\0\0b\0"], ['line ends', "\r\n\n\r"],
        ['every byte', join('', map { chr } 0 .. 255) x 5], ['1 MiB', random_bytes(1 << 20)],
    );
    push @cases, ['10 MiB', random_bytes(10 << 20)] if $version eq '1.2';
    my $client = Client->new($version);
    my $where = fresh();
    my $subscription = $client->subscribe($where);
    for my $case (@cases) {
        my ($name, $body) = @$case;
        $client->send($where, $body);
        my $got = $client->receive($subscription);
        my $size = length $body;
        expect($got->body eq $body, "$name: " . length($got->body) . " other bytes, not $size");
        my $length = $got->headers->{'content-length'} // $size;
        expect($length == $size, "$name: content-length $length");
    }
    $client->close;
}

# Without `bytes_message` it sends no content-length: the NUL ends the body.
sub bodies_without_length_come_back {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    my $subscription = $client->subscribe($where);
    for my $body ('text', '', 'x' x 300_000) {
        $client->send($where, $body, bytes_message => 0);
        my $got = $client->receive($subscription);
        expect($got->body eq $body, 'other ' . length($got->body) . ' bytes');
        my $length = $got->headers->{'content-length'} // 'none';
        expect($length eq 'none', "content-length $length, which makes it bytes to others");
    }
    $client->close;
}

# Its own way to ask for a receipt; it takes the next frame for it, so nothing may be subscribed.
sub send_with_receipt_is_confirmed {
    my ($version) = @_;
    my $producer = Client->new($version);
    my $where = fresh();
    my %message = (destination => $where, body => 'its own way', persistent => 'true');
    my $is_confirmed = $producer->{stomp}->send_with_receipt({ %message, timeout => $TIMEOUT_S });
    expect($is_confirmed, 'no receipt');
    # Its own disconnect too: it closes at once, and what was confirmed stays.
    $producer->{stomp}->disconnect;
    my $client = Client->new($version);
    my $got = $client->receive($client->subscribe($where))->body;
    expect($got eq 'its own way', "another body: $got");
    $client->close;
}

sub volatile_messages_pass_too {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    my $subscription = $client->subscribe($where);
    $client->send($where, 'volatile', persistent => 'false');
    expect($client->receive($subscription)->body eq 'volatile', 'another body');
    $client->close;
}

sub auto_takes_messages_out {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    $client->send($where, $_) for bodies(10);
    my $subscription = $client->subscribe($where);
    for my $body (bodies(10)) {
        expect($client->receive($subscription)->body eq $body, 'not in order');
    }
    $client->close;
    $client = Client->new($version);
    $client->receive_nothing($client->subscribe($where));
    $client->close;
}

sub client_mode_is_cumulative {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    $client->send($where, $_) for bodies(10);
    my $subscription = $client->subscribe($where, 'client');
    my @frames = map { $client->receive($subscription) } 1 .. 10;
    expect(!grep({ is_again($_) } @frames), 'redelivered at first delivery');
    $client->settle($frames[5]);
    $client->drop;
    $client = Client->new($version);
    $subscription = $client->subscribe($where, 'client');
    my $last;
    for my $body ((bodies(10))[6 .. 9]) {
        $last = $client->receive($subscription);
        expect($last->body eq $body, $last->body . " instead of $body");
        expect(is_again($last), "$body came again without redelivered:true");
    }
    $client->settle($last);
    $client->receive_nothing($subscription);
    $client->close;
}

sub individual_mode_settles_one {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    $client->send($where, $_) for bodies(10);
    my $subscription = $client->subscribe($where, 'client-individual');
    my @frames = map { $client->receive($subscription) } 1 .. 10;
    $client->settle($frames[$_]) for 1, 3, 5, 7, 9;
    $client->drop;
    $client = Client->new($version);
    $subscription = $client->subscribe($where, 'client-individual');
    for my $body ((bodies(10))[0, 2, 4, 6, 8]) {
        my $frame = $client->receive($subscription);
        expect($frame->body eq $body && is_again($frame), $frame->body . " instead of $body again");
        $client->settle($frame);
    }
    $client->receive_nothing($subscription);
    $client->close;
}

sub nack_brings_it_back {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    $client->send($where, 'refused once');
    my $subscription = $client->subscribe($where, 'client-individual');
    my $first = $client->receive($subscription);
    expect(!is_again($first), 'redelivered at first delivery');
    $client->settle($first, 'nack');
    my $second = $client->receive($subscription);
    expect($second->body eq 'refused once' && is_again($second), $second->body);
    $client->settle($second);
    $client->receive_nothing($subscription);
    $client->close;
}

sub consumers_compete {
    my ($version) = @_;
    my $where = fresh();
    my $ack = $version eq '1.0' ? 'client' : 'client-individual';
    my @consumers = map { Client->new($version) } 1 .. 2;
    my @subscriptions = map { $_->subscribe($where, $ack, prefetch => 1) } @consumers;
    my $producer = Client->new($version);
    $producer->send($where, $_) for bodies(40);
    my @seen;
    while (@seen < 40) {
        my $turn = @seen % 2;
        my $frame = $consumers[$turn]->receive($subscriptions[$turn]);
        push @seen, $frame->body;
        $consumers[$turn]->settle($frame);
    }
    my ($got, $expected) = map { join ',', sort @$_ } \@seen, [bodies(40)];
    expect($got eq $expected, 'not each exactly once');
    $consumers[$_]->receive_nothing($subscriptions[$_]) for 0, 1;
    $_->close for @consumers, $producer;
}

sub topics_reach_everybody_who_is_there {
    my ($version) = @_;
    my $where = fresh('topic');
    my @listeners = map { Client->new($version) } 1 .. 2;
    my @subscriptions = map { $_->subscribe($where) } @listeners;
    my $producer = Client->new($version);
    $producer->send($where, $_) for bodies(20);
    for my $index (0, 1) {
        for my $body (bodies(20)) {
            my $got = $listeners[$index]->receive($subscriptions[$index])->body;
            expect($got eq $body, "$got instead of $body");
        }
    }
    my $late = Client->new($version);
    $late->receive_nothing($late->subscribe($where));
    $_->close for @listeners, $producer, $late;
}

sub durable_subscriptions_collect_until_told_to_go {
    my ($version) = @_;
    my ($where, $name) = (fresh('topic'), 'd' . count());
    my @whose = ('client-id' => "pl-$RUN-$name");
    my $client = Client->new($version, @whose);
    $client->subscribe($where, 'auto', durable => $name);
    $client->close;
    my $producer = Client->new($version);
    $producer->send($where, $_) for bodies(10);
    my $subscription;
    for my $left (10, 0) {
        $client = Client->new($version, @whose);
        $subscription = $client->subscribe($where, 'auto', durable => $name);
        for my $body (bodies($left)) {
            my $got = $client->receive($subscription)->body;
            expect($got eq $body, "$got instead of $body");
        }
        $client->receive_nothing($subscription);
        $client->close if $left;
    }
    $client->unsubscribe($subscription, durable => $name);
    $producer->send($where, 'nobody');
    $client->receive_nothing($client->subscribe($where, 'auto', durable => $name));
    $_->close for $client, $producer;
}

sub unsubscribe_stops_deliveries {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    my $subscription = $client->subscribe($where);
    $client->send($where, 'first');
    $client->receive($subscription);
    $client->unsubscribe($subscription);
    $client->send($where, 'second');
    $client->receive_nothing($subscription);
    my $again = $client->subscribe($where);
    expect($client->receive($again)->body eq 'second', 'the second message is gone');
    $client->close;
}

# It passes over those that come between frames. It must not wait for a frame meanwhile: each beat
# begins its time-out anew.
sub heart_beats_of_the_broker_do_no_harm {
    my ($version) = @_;
    my $client = Client->new($version, 'heart-beat' => "0,$HEART_BEAT_MS");
    my $where = fresh();
    my $subscription = $client->subscribe($where);
    for my $body (bodies(3)) {
        sleep 2.5 * $HEART_BEAT_MS / 1000;
        $client->send($where, $body);
        expect($client->receive($subscription)->body eq $body, 'another body');
    }
    $client->close;
}

sub an_error_ends_its_own_connection_only {
    my ($version) = @_;
    my $neighbour = Client->new($version);
    my $where = fresh();
    my $subscription = $neighbour->subscribe($where);
    my $client = Client->new($version);
    $client->command('NONSENSE', {});
    expect($client->wait_for($client->{errors}, $TIMEOUT_S), 'no ERROR');
    $client->wait_for([], $TIMEOUT_S);
    expect($client->{is_ended}, 'the connection stays open');
    $neighbour->send($where, 'still here');
    expect($neighbour->receive($subscription)->body eq 'still here', 'the neighbour is disturbed');
    $neighbour->close;
}

sub disconnect_is_confirmed {
    my ($version) = @_;
    my $client = Client->new($version);
    my $where = fresh();
    $client->send($where, 'before');
    $client->close;
    $client = Client->new($version);
    expect($client->receive($client->subscribe($where))->body eq 'before', 'another body');
    $client->close;
}

my @ALL = ('1.0', '1.1', '1.2');
my @SINCE_1_1 = ('1.1', '1.2');

# Name, versions, and why it cannot be said through this client.
my @CHECKS = (
    [version_is_negotiated => \@ALL],
    [bodies_come_back_byte_for_byte => \@ALL],
    [bodies_without_length_come_back => \@ALL],
    [send_with_receipt_is_confirmed => \@ALL],
    [volatile_messages_pass_too => \@ALL],
    [headers_round_trip => \@SINCE_1_1, 'it neither escapes nor unescapes headers'],
    [auto_takes_messages_out => \@ALL],
    [client_mode_is_cumulative => \@ALL],
    [individual_mode_settles_one => \@SINCE_1_1],
    [nack_brings_it_back => \@SINCE_1_1],
    [consumers_compete => \@ALL],
    [topics_reach_everybody_who_is_there => \@ALL],
    [durable_subscriptions_collect_until_told_to_go => \@ALL],
    [unsubscribe_stops_deliveries => \@ALL],
    [heart_beats_keep_idle_connections => \@SINCE_1_1, 'it sends no heart-beats'],
    [heart_beats_of_the_broker_do_no_harm => \@SINCE_1_1],
    [an_error_ends_its_own_connection_only => \@ALL],
    [disconnect_is_confirmed => \@ALL],
);

sub check {
    my ($passed, $failed) = (0, 0);
    for my $version (@ALL) {
        for my $check (@CHECKS) {
            my ($function, $versions, $why_not) = @$check;
            next unless grep { $_ eq $version } @$versions;
            my $name = "Net::Stomp $version $function";
            if ($why_not) {
                print "cannot $name: $why_not\n";
            } elsif (eval { main->can($function)->($version); 1 }) {
                $passed += 1;
                print "ok   $name\n";
            } else {    # every failure is named, the others go on
                $failed += 1;
                print "FAIL $name: $@";
            }
        }
    }
    print "passed $passed failed $failed\n";
    return $failed ? 1 : 0;
}

# ---- the restart in the middle -------------------------------------------------------------------

# Bodies that can be made again: small, with NULs, and two larger than a journal block.
sub kept_body {
    my ($index) = @_;
    my $size = { 7 => 100_000, 13 => 700_000 }->{$index} // 40 + $index;
    return "$index:" . pack('C*', map { ($index * 31 + $_) % 256 } 0 .. $size - 1);
}

sub hold {
    my ($run) = @_;
    my ($consumer, $producer) = (Client->new('1.2'), Client->new('1.2'));
    for my $index (0 .. 19) {
        $producer->send("/queue/pl-$_-$run", kept_body($index)) for qw(held untouched);
    }
    my @mode = ('client-individual', prefetch => 100);
    my $subscription = $consumer->subscribe("/queue/pl-held-$run", @mode);
    my @frames = map { $consumer->receive($subscription) } 0 .. 19;
    $consumer->settle($_) for @frames[0 .. 4];
    print "holding\n";
    $consumer->wait_for([], 60);
    return 0;
}

sub resume {
    my ($run) = @_;
    my $client = Client->new('1.2');
    my $held = $client->subscribe("/queue/pl-held-$run", 'client-individual');
    for my $index (5 .. 19) {
        my $frame = $client->receive($held);
        expect($frame->body eq kept_body($index), "held $index: another body");
        expect(is_again($frame), "held $index: no redelivered:true");
        $client->settle($frame);
    }
    $client->receive_nothing($held);
    my $untouched = $client->subscribe("/queue/pl-untouched-$run");
    for my $index (0 .. 19) {
        my $body = $client->receive($untouched)->body;
        expect($body eq kept_body($index), "untouched $index: another body");
    }
    $client->receive_nothing($untouched);
    $client->close;
    print "passed 1 failed 0\n";
    return 0;
}

my (undef, $verb, $run) = @ARGV;
my %verbs = (check => \&check, hold => \&hold, resume => \&resume);
my $code = eval { $verbs{$verb}->($run) };
if (!defined $code) {
    print "FAIL Net::Stomp $verb: $@";
    $code = 1;
}
exit $code;
